// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "commands.hpp"
#include <segmed/image/nifti_convert.hpp>

namespace experiments {

using namespace segmed;

int convert(const ConvertCommand& options) {
  ConvertOptions how;
  how.orient = options.orient;
  if (!options.spacing.empty()) {
    require<ConfigError>(options.spacing.size() == 3, "--spacing", "has ", options.spacing.size(),
                         " numbers; give three, in mm, such as 1,1,1");
    how.spacing = {options.spacing[0], options.spacing[1], options.spacing[2]};
  }
  if (!options.interpolation.empty())
    how.interpolation =
        options.interpolation == "nearest" ? Interpolation::nearest : Interpolation::linear;
  for (const auto& note : convert_nifti(options.in, options.out, how))
    std::fprintf(stderr, "%s\n", note.c_str());
  return done;
}

}  // namespace experiments
