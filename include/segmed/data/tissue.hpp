// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <segmed/data/anatomy.hpp>

namespace segmed::phantom {

/// The ten organs in the order of their class numbers, 1 to 10.
inline const std::vector<std::string>& organ_names() {
  static const std::vector<std::string> names = {
      "spleen",  "kidney_right", "kidney_left",        "gallbladder", "liver",
      "stomach", "aorta",        "inferior_vena_cava", "pancreas",    "urinary_bladder"};
  return names;
}

/// What a voxel is made of. The first ten are the organs' classes.
enum Tissue : std::uint8_t {
  air,
  spleen,
  kidney_right,
  kidney_left,
  gallbladder,
  liver,
  stomach,
  aorta,
  vena_cava,
  pancreas,
  bladder,
  medulla_right,
  medulla_left,
  liver_vessel,
  liver_lesion,
  kidney_cyst_right,
  kidney_cyst_left,
  stomach_content,
  stomach_gas,
  aorta_plaque,
  skin_fat,
  muscle,
  inner_fat,
  bone,
  marrow,
  disc,
  cord,
  lung,
  heart,
  bowel,
  bowel_content,
  bowel_gas,
  stool,
  duodenum,
  portal_vein,
  artery,
  vein,
  table,
  tissue_count
};

/// The class of a tissue, 0 for what belongs to no organ.
inline std::uint8_t organ_of(std::uint8_t tissue) {
  constexpr std::uint8_t rest[] = {kidney_right, kidney_left, liver,   liver, kidney_right,
                                   kidney_left,  stomach,     stomach, aorta};
  if (tissue <= bladder) return tissue;
  return tissue <= aorta_plaque ? rest[tissue - medulla_right] : std::uint8_t(0);
}

/// Mean and texture of each tissue in one patient, in HU.
struct Intensities {
  std::array<float, tissue_count> mean{}, texture{};

  /// The contrast phase is drawn first: none, arterial, portal venous or late.
  static Intensities draw(Draws& draws) {
    const auto phase = std::size_t(draws.below(4));
    // How far this patient is from the textbook's phase towards the next one.
    const float late = draws.uniform(0, 0.5f);
    Intensities hu;
    const auto set = [&](Tissue tissue, std::array<float, 4> phases, float spread, float grain) {
      const float level =
          phases[phase] + late * (phases[std::min<std::size_t>(phase + 1, 3)] - phases[phase]);
      hu.mean[tissue] = draws.normal(level, spread);
      hu.texture[tissue] = grain;
    };
    const auto plain = [&](Tissue tissue, float level, float spread, float grain) {
      set(tissue, {level, level, level, level}, spread, grain);
    };
    set(spleen, {48, 110, 118, 95}, 8, 7);
    set(liver, {56, 68, 106, 88}, 11, 9);
    set(kidney_right, {32, 125, 160, 135}, 9, 8);
    set(medulla_right, {30, 65, 130, 130}, 8, 8);
    hu.mean[kidney_left] = hu.mean[kidney_right], hu.texture[kidney_left] = 8;
    hu.mean[medulla_left] = hu.mean[medulla_right], hu.texture[medulla_left] = 8;
    set(pancreas, {38, 85, 88, 70}, 9, 14);
    set(stomach, {40, 62, 78, 68}, 8, 9);
    set(aorta, {40, 260, 145, 112}, 12, 4);
    set(vena_cava, {38, 62, 122, 108}, 12, 7);
    set(portal_vein, {40, 75, 135, 110}, 10, 4);
    set(liver_vessel, {44, 80, 140, 108}, 9, 4);
    set(heart, {42, 180, 130, 108}, 12, 10);
    set(artery, {40, 240, 140, 110}, 12, 4);
    set(vein, {38, 55, 105, 105}, 12, 4);
    set(duodenum, {38, 60, 72, 62}, 10, 12);
    set(bowel, {36, 58, 70, 62}, 9, 12);
    set(bladder, {6, 7, 10, 55}, 6, 3);
    plain(gallbladder, 12, 8, 4);
    plain(liver_lesion, 22, 18, 5);
    plain(kidney_cyst_right, 8, 6, 3), plain(kidney_cyst_left, 8, 6, 3);
    plain(stomach_content, draws.chance(0.3f) ? 110 : 22, 14, 13);
    plain(bowel_content, draws.chance(0.3f) ? 140 : 22, 16, 16);
    plain(stomach_gas, -880, 30, 10), plain(bowel_gas, -820, 40, 20);
    plain(stool, -60, 40, 90);
    plain(aorta_plaque, 380, 90, 40);
    plain(skin_fat, -104, 5, 8), plain(inner_fat, -98, 6, 15);
    plain(muscle, 54, 6, 12);
    plain(bone, 430, 60, 120), plain(marrow, 170, 40, 45), plain(disc, 78, 8, 10);
    plain(cord, 28, 5, 4);
    plain(lung, -820, 35, 45);
    plain(table, -250, 80, 10);
    plain(air, -1000, 0, 0);
    return hu;
  }
};

}  // namespace segmed::phantom
