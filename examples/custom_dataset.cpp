// SPDX-License-Identifier: Apache-2.0
// A data set of one's own: a struct with its classes, its number of cases, and how to load one.
#include <cstdio>

#include <segmed/segmed.hpp>
using namespace segmed;
using F = Features<3, float, Cpu>;

// [user]
struct Spheres {  // a bright ball in noise, somewhere in 32^3 voxels of 1 mm
  Index cases = 6;

  ClassTable class_table() const { return ClassTable::of({"ball"}); }
  Index size() const { return cases; }
  CaseInfo info(Index i) const {
    const auto id = "ball_" + std::to_string(i);
    return {id, id, Part::full, AnnotatedSet::all(2), true};
  }
  Example load(Index i) const {
    const auto [id, patient, part, annotated, labelled] = info(i);
    const Extent3 extent = {32, 32, 32};
    Example e{id, patient, make_volume<float>(extent), make_volume<std::uint8_t>(extent),
              annotated};
    const Philox random{7, Purpose::phantom, std::uint32_t(i)};
    const double at[3] = {random.uniform(0, 10, 22), random.uniform(1, 10, 22),
                          random.uniform(2, 10, 22)};
    for (Index v = 0; v < 32 * 32 * 32; ++v) {
      const double x = double(v % 32) - at[0], y = double(v / 32 % 32) - at[1],
                   z = double(v / 1024) - at[2];
      e.labels.voxels[std::size_t(v)] = x * x + y * y + z * z < 49;
      e.image.voxels[std::size_t(v)] =
          float(e.labels.voxels[std::size_t(v)]) + 0.5f * random.normal(v + 3);
    }
    return e;
  }
};
static_assert(Cohort<Spheres>);
// [user]

int main() {
  UNet<UNetParts<F>> net({.classes = 2, .widths = {4, 8}});
  const auto report = run({.name = "spheres", .steps = 6, .patch = {24, 24, 24}}, Spheres{}, net,
                          Sum{Dice{}, CrossEntropy{}}, Supervised{}, AdamW{.rate = 1e-2f});
  std::printf("loss %.3f -> %.3f\n", report.curve.front().total, report.curve.back().total);
  return report.curve.back().total < report.curve.front().total ? 0 : 1;
}
