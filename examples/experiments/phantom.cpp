// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <filesystem>

#include "commands.hpp"
#include <segmed/data/phantom.hpp>
#include <segmed/data/totalsegmentator.hpp>
#include <segmed/experiment/progress.hpp>

namespace experiments {

using namespace segmed;

namespace {

/// Scans made when they are asked for, so that a large cohort needs no memory.
struct Generated {
  segmed::phantom::AbdomenOptions options;
  Progress& progress;

  ClassTable class_table() const { return segmed::phantom::abdomen_classes(options.organs); }
  Index size() const { return options.cases; }
  CaseInfo info(Index i) const {
    char id[16];
    std::snprintf(id, sizeof id, "s%04d", int(i));
    return {id, id, Part::full, AnnotatedSet::all(options.organs + 1), true};
  }
  Example load(Index i) const {
    Example example = segmed::phantom::abdomen_case(options, i);
    progress.at(double(i + 1) / double(options.cases), example.id);
    return example;
  }
};

}  // namespace

int phantom(const PhantomOptions& options) {
  namespace fs = std::filesystem;
  require<ConfigError>(!fs::exists(options.out) || fs::is_empty(options.out), "phantom",
                       options.out,
                       ": is not empty; give --out a folder that is, or remove it first");
  segmed::phantom::AbdomenOptions how;
  how.cases = options.cases, how.organs = options.organs, how.seed = options.seed;
  how.extent = options.extent, how.spacing_mm = options.spacing_mm;
  how.validation = 0;
  const double mib =
      double(how.extent[0] * how.extent[1] * how.extent[2]) * double(how.cases) * 4 / 1048576;
  std::printf("%d scans of %dx%dx%d voxels with %d organs, about %.0f MiB on disk\n",
              int(how.cases), int(how.extent[0]), int(how.extent[1]), int(how.extent[2]),
              int(how.organs), 0.4 * mib);
  Progress progress("phantom");
  write_totalsegmentator(Generated{how, progress}, options.out);
  progress.done(std::to_string(how.cases) + " scans in " + options.out);
  return done;
}

}  // namespace experiments
