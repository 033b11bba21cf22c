// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <filesystem>
#include <numeric>

#include "commands.hpp"
#include <segmed/data/folder.hpp>
#include <segmed/experiment/progress.hpp>
#include <segmed/image/nifti.hpp>

namespace experiments {

using namespace segmed;

int predict(const PredictOptions& options) {
  namespace fs = std::filesystem;
  const Model model = Model::load(options.model);
  std::vector<std::string> inputs = {options.in};
  if (fs::is_directory(options.in)) inputs = nifti_files(options.in);
  require<FileError>(fs::exists(options.in), "predict", options.in, ": there is no such file");
  require<FileError>(!inputs.empty(), "predict", options.in, ": holds no NIfTI image");
  fs::create_directories(options.out);
  NiftiWriteOptions how;
  for (Index c = 1; c < model.recipe.classes.size(); ++c)
    how.labels.push_back({int(c), model.recipe.classes.names[std::size_t(c)]});
  Progress progress("predict", options.quiet);
  Index skipped = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (stop_requested) return interrupted;
    if (Index(i) % ranks().size() != ranks().rank()) continue;
    const fs::path out = fs::path(options.out) / (stem_of(inputs[i]) + ".nii.gz");
    try {
      require<ConfigError>(!fs::exists(out) || !fs::equivalent(out, inputs[i]), "predict",
                           out.string(), ": would replace the scan; give another --out");
      write_nifti(out.string(), model.predict(read_nifti<float>(inputs[i]), options.mirror), how);
    } catch (const ConfigError&) {
      throw;
    } catch (const Error& error) {
      if (inputs.size() == 1) throw;
      std::fprintf(stderr, "skipped %s: %s\n", inputs[i].c_str(), error.what());
      ++skipped;
    }
    progress.at(double(i + 1) / double(inputs.size()), stem_of(inputs[i]));
  }
  const auto of_each = ranks().gathered(std::vector<Index>{skipped});
  skipped = std::accumulate(of_each.begin(), of_each.end(), Index{0});
  progress.done(std::to_string(inputs.size() - std::size_t(skipped)) + " scans in " + options.out);
  return skipped > 0 ? cases_skipped : done;
}

}  // namespace experiments
