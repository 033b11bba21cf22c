// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include <segmed/data/anatomy.hpp>
#include <segmed/data/tissue.hpp>

namespace segmed::phantom {

/// Draws one patient's anatomy, back to front: what comes later lies over what came before.
class Abdomen {
 public:
  Abdomen(Canvas& canvas, Draws& draws) : canvas_(canvas), draws_(draws) {
    trunk();
    bowel_loops();
    upper_organs();
    pancreas_and_vessels();
    kidneys();
    lungs_and_heart();
    pelvis();
  }

 private:
  float vary(float deviation) { return draws_.normal(0, deviation); }
  Spot near(float x, float y, float z, float deviation = 5) {
    return {x + vary(deviation), y + vary(deviation), z + vary(deviation)};
  }
  float size(float deviation = 0.1f) {
    return std::clamp(1 + vary(deviation), 1 - 2.2f * deviation, 1 + 2.2f * deviation);
  }
  static bool soft(std::uint8_t tissue) {
    return tissue == inner_fat || tissue == bowel || tissue == bowel_content ||
           tissue == bowel_gas || tissue == stool || (tissue >= spleen && tissue <= aorta_plaque) ||
           tissue == duodenum || tissue == portal_vein || tissue == artery || tissue == vein;
  }
  template <class Solid>
  void organ(const Solid& solid, float lumps, Tissue tissue) {
    canvas_.paint(solid, lumps, [=](float, float, float, float, std::uint8_t before) {
      return soft(before) ? std::uint8_t(tissue) : before;
    });
  }

  void trunk() {
    const float half_x = 168 * size(0.06f), half_y = 119 * size(0.08f);
    const float fat = draws_.uniform(9, 30), belly = draws_.uniform(0.6f, 1.5f);
    const float waist = draws_.uniform(0.02f, 0.1f), rib_shift = draws_.uniform(0, 24);
    const float disc_shift = draws_.uniform(0, 34), lordosis = draws_.uniform(3, 11);
    canvas_.each([=](float x, float y, float z, float bump, std::uint8_t) -> std::uint8_t {
      const float narrow = (z + 30) * (1 / 70.0f);
      const float u = x / (half_x * (1 - waist / (1 + narrow * narrow))), v = y / half_y;
      const float uu = u * u, vv = v * v, rho = uu + vv - 0.55f * uu * vv;
      if (uu > 1.3f || vv > 1.3f || rho > 1) {
        const float under = y + half_y + 10 - 0.0009f * x * x;
        return under < 0 && under > -13 && std::abs(x) < 190 ? table : air;
      }
      const float depth = std::sqrt(x * x + y * y) * (1 / std::sqrt(rho + 1e-6f) - 1);
      // Thicker in front of a belly and behind the hips.
      const float skin = fat * (0.75f + 0.25f * belly * (v > 0 ? v : 0) + 0.12f * bump);
      if (depth < skin) return depth < 2.5f ? muscle : skin_fat;
      const float wall = skin + 13 + (v < -0.35f ? 26 * std::min(1.0f, (-0.35f - v) * 4) : 0.0f);
      const float middle_y = -50 + lordosis * std::cos(z * (1 / 70.0f));
      if (const std::uint8_t part = spine(x, y - middle_y, z + disc_shift, bump); part != air)
        return part;
      if (depth < wall) {
        const float margin = 18 + 75 * std::max(0.0f, v);
        const float phase = (z + 0.5f * y + rib_shift + 480) * (1 / 25.0f);
        const float along = phase - std::floor(phase), into = depth - skin;
        if (z > margin && along < 0.44f && into > 2 && into < 11)
          return std::abs(along - 0.22f) < 0.12f && into > 4 && into < 9 ? marrow : bone;
        // Sheets of fat between the muscles.
        return bump > 1.5f && into > 5 ? skin_fat : muscle;
      }
      const float beside = std::abs(x) - 36 - 0.07f * std::max(0.0f, 30 - z);
      const float psoas = 8 + 0.11f * std::clamp(40 - z, 0.0f, 150.0f);
      const float dy = y - middle_y - 4;
      if (z < 45 && beside * beside + dy * dy < psoas * psoas) return muscle;
      return inner_fat;
    });
  }

  /// Vertebrae 34 mm apart with disc, canal and processes; y counts from the middle of the body.
  static std::uint8_t spine(float x, float y, float z, float bump) {
    if (std::abs(x) > 46 || y > 24 || y < -62) return air;
    const float phase = (z + 340) * (1 / 34.0f), along = phase - std::floor(phase);
    const float r = x * x * (1 / 576.0f) + y * y * (1 / 361.0f);
    if (r < 1.12f && along < 0.2f) return disc;
    if (r < 1) return r > 0.74f || along < 0.27f || along > 0.93f ? bone : marrow;
    const float back = y + 29, canal = x * x + back * back;
    if (canal < 64) return cord;
    if (canal < 196 && along > 0.35f) return bone;
    if (std::abs(x) < 4 && y < -40 && along > 0.45f) return bone;
    if (std::abs(x) < 42 && std::abs(y + 24 + 0.12f * bump) < 4.5f && along > 0.5f && along < 0.8f)
      return bone;
    return air;
  }

  /// A piece of gut: wall, content, and gas where it has risen to the front.
  void gut(const Tube& tube, bool faeces) {
    const float fill = draws_.uniform(0, 1), gas = draws_.uniform(-8, 16);
    float front = -1e9f;
    for (const Spot& point : tube.points) front = std::max(front, point.y);
    canvas_.paint(tube, 0.16f,
                  [=](float, float y, float, float depth, std::uint8_t before) -> std::uint8_t {
                    if (!soft(before)) return before;
                    if (depth > 0.62f) return bowel;
                    if (fill > 0.55f && y > front + gas) return bowel_gas;
                    return faeces ? stool : fill > 0.3f ? bowel_content : bowel;
                  });
  }
  void bowel_loops() {
    const Index loops = 30 + draws_.below(10);
    for (Index k = 0; k < loops; ++k) {
      Tube tube;
      Spot at = {draws_.uniform(-85, 85), draws_.uniform(-8, 76), draws_.uniform(-130, 5)};
      float turn = draws_.uniform(0, 6.28f);
      for (int i = 0; i < 4; ++i) {
        tube.points.push_back(at);
        tube.radius.push_back(draws_.uniform(10, 16));
        turn += draws_.uniform(-1.3f, 1.3f);
        at = {at.x + 26 * std::cos(turn), at.y + draws_.uniform(-10, 10),
              at.z + 20 * std::sin(turn)};
      }
      gut(tube, false);
    }
    const float wide = size(0.15f), low = draws_.uniform(-25, 15), high = draws_.uniform(40, 70);
    gut({{near(98, 5, -105), near(105, -8, -50), near(104, -5, 5), near(88, 20, 25)},
         {27 * wide, 25 * wide, 22 * wide, 19 * wide}},
        draws_.chance(0.7f));
    gut({{near(88, 25, 22), near(45, 74, low), near(-15, 82, low - 5), near(-65, 62, low + 25),
          near(-98, 5, high)},
         {18 * wide, 19 * wide, 18 * wide, 17 * wide, 15 * wide}},
        draws_.chance(0.4f));
    gut({{near(-104, 0, high), near(-110, -18, 0), near(-105, -10, -70), near(-70, 5, -115),
          near(-25, -20, -125), near(0, -45, -150)},
         {14 * wide, 14 * wide, 15 * wide, 15 * wide, 14 * wide, 16 * wide}},
        draws_.chance(0.5f));
  }

  void upper_organs() {
    const float big = size(0.09f);
    organ(Blob{near(82, 8, 76), {84 * big, 90 * big, 82 * size()}, vary(8), 14 + vary(6)}, 0.06f,
          liver);
    organ(
        Blob{
            near(8, 42, 100), {82 * size(0.16f), 38 * size(), 34 * size()}, vary(6), -12 + vary(6)},
        0.06f, liver);
    // The hollow that the gut and the kidney press into the liver.
    organ(Blob{near(48, 12, -2), {44, 60, 42}, vary(8), 20}, 0.05f, inner_fat);
    porta_ = near(28, 8, 62);
    for (int branch = 0; branch < 5; ++branch) {
      const Spot middle = near(60 + 10 * float(branch % 2), -10 + 14 * float(branch), 80, 8);
      inside(
          Tube{{porta_, middle, near(110, -40 + 25 * float(branch), 70 + 12 * float(branch), 12)},
               {8, 5, 3}},
          liver, liver_vessel);
    }
    for (Index lesions = draws_.below(4) - 1; lesions > 0; --lesions) {
      const float r = draws_.uniform(6, 16);
      inside(Blob{near(85, 5, 80, 30), {r, r, r * size()}}, liver, liver_lesion);
    }
    organ(Blob{near(-108, -36, 84, 6),
               {31 * size(0.12f), 52 * size(0.12f), 56 * size(0.12f)},
               24 + vary(8),
               -16 + vary(8)},
          0.09f, spleen);
    organ(Blob{near(-60, -14, 72, 5), {30, 34, 50}}, 0.05f, inner_fat);
    stomach_and_gallbladder();
  }
  template <class Solid>
  void inside(const Solid& solid, Tissue where, Tissue tissue) {
    canvas_.paint(solid, 0.05f, [=](float, float, float, float, std::uint8_t before) {
      return before == where ? std::uint8_t(tissue) : before;
    });
  }
  void stomach_and_gallbladder() {
    const float full = draws_.uniform(0.62f, 1.15f);
    const Tube tube{{near(-58, -4, 112), near(-62, 28, 84), near(-48, 50, 52), near(-10, 54, 28),
                     near(26, 42, 32)},
                    {33 * full, 33 * full, 27 * full, 19 * full, 12}};
    const float level = draws_.uniform(22, 62), wall = draws_.uniform(0.6f, 0.78f);
    canvas_.paint(tube, 0.09f,
                  [=](float, float y, float, float depth, std::uint8_t before) -> std::uint8_t {
                    if (!soft(before)) return before;
                    if (depth > wall) return stomach;
                    return y > level ? stomach_gas : stomach_content;
                  });
    // One patient in ten has no gallbladder any more.
    const bool removed = draws_.chance(0.1f);
    const float r = draws_.uniform(10, 18);
    const Blob blob{near(52, 46, 34, 7),
                    {r, r * 1.1f, r * draws_.uniform(1.4f, 2.0f)},
                    10 + vary(15),
                    20 + vary(12)};
    if (!removed) organ(blob, 0.08f, gallbladder);
  }

  void pancreas_and_vessels() {
    gut({{near(28, 34, 32), near(50, 14, 24), near(52, 0, -6), near(20, -6, -22),
          near(-14, 2, -20)},
         {13, 13, 13, 12, 11}},
        false);
    const float thick = size(0.16f), lift = vary(12);
    organ(Tube{{near(34, 6, 4), near(32, 10, 24), near(8, 20, 34), near(-24, 14, 42 + lift),
                near(-58, -6, 56 + lift), near(-84, -24, 66 + lift)},
               {13 * thick, 14 * thick, 9 * thick, 10 * thick, 10 * thick, 8 * thick}},
          0.2f, pancreas);
    organ(Tube{{near(10, 6, 20, 3), near(20, 6, 44, 3), porta_, near(52, 2, 74, 4)}, {7, 7, 7, 5}},
          0.03f, portal_vein);
    organ(Tube{{near(8, 2, 30, 3), near(-28, 2, 44 + lift, 3), near(-88, -22, 66 + lift, 4)},
               {5, 4.5f, 4}},
          0.03f, portal_vein);
    organ(Tube{{near(-4, 6, 36, 3), near(2, 12, 0, 4), near(8, 20, -60, 8)}, {4, 4, 3}}, 0.03f,
          artery);

    const float wide = size(0.13f), fork = -66 + vary(8), plaque = draws_.uniform(0.5f, 1.6f);
    const Spot a0 = near(-14, -22, 190, 3), a1 = near(-12, -20, 90, 4), a2 = near(-8, -16, 10, 5),
               a3 = near(-2, -20, fork, 4);
    const Tube main{{a0, a1, a2, a3}, {12.5f * wide, 12 * wide, 10.5f * wide, 9.5f * wide}};
    canvas_.paint(main, 0.05f,
                  [=](float x, float y, float z, float depth, std::uint8_t before) -> std::uint8_t {
                    if (before == bone || before == marrow) return before;
                    return depth > 0.7f &&
                                   std::sin(x * 0.4f + z * 0.13f) + std::sin(y * 0.3f - z * 0.09f) >
                                       plaque
                               ? aorta_plaque
                               : aorta;
                  });
    const float flat = size(0.18f);
    const Tube cava{{near(22, 4, 145, 3), near(24, -8, 100, 3), near(20, -22, 40, 4),
                     near(20, -24, 0, 4), near(14, -28, fork - 10, 4)},
                    {13 * flat, 13 * flat, 11.5f * flat, 11 * flat, 10 * flat}};
    canvas_.paint(cava, 0.06f, [=](float, float, float, float, std::uint8_t before) {
      const bool fixed =
          before == bone || before == marrow || before == disc || organ_of(before) == aorta;
      return fixed ? before : std::uint8_t(vena_cava);
    });
    for (const float side : {-1.0f, 1.0f}) {
      organ(Tube{{a3, near(side * 34, -26, fork - 50, 4), near(side * 62, 14, -170, 5)},
                 {7.5f, 7, 6}},
            0.03f, artery);
      organ(Tube{{near(12, -30, fork - 12, 3), near(side * 32, -36, fork - 54, 4),
                  near(side * 58, 4, -172, 5)},
                 {8.5f, 8, 7}},
            0.03f, vein);
    }
  }

  void kidneys() {
    for (const bool right : {true, false}) {
      const float side = right ? 1.0f : -1.0f, big = size(0.11f);
      const Spot center = right ? near(67, -34, 6, 7) : near(-67, -32, 20, 7);
      const float turn = side * (-28 + vary(8)), tilt = side * (-12 + vary(6));
      const Blob whole{center, {31 * big, 27 * big, 57 * size(0.1f) * big}, turn, tilt};
      canvas_.paint(whole, 0.07f,
                    [=](float, float, float, float depth, std::uint8_t before) -> std::uint8_t {
                      if (!soft(before)) return before;
                      if (depth < 0.42f) return right ? medulla_right : medulla_left;
                      return right ? kidney_right : kidney_left;
                    });
      const Spot hilum = {center.x - side * 15, center.y + 7, center.z};
      canvas_.paint(Blob{hilum, {17 * big, 9 * big, 22 * big}, turn, tilt}, 0.12f,
                    [=](float, float, float, float, std::uint8_t before) {
                      return organ_of(before) == (right ? kidney_right : kidney_left)
                                 ? std::uint8_t(inner_fat)
                                 : before;
                    });
      organ(Tube{{hilum, near(right ? 24.0f : -4.0f, -14, center.z + 4, 3)}, {5, 5}}, 0.03f, vein);
      for (Index cysts = draws_.below(5) - 2; cysts > 0; --cysts) {
        const float r = draws_.uniform(5, 15);
        organ(Blob{near(center.x + side * 14, center.y - 8, center.z, 14), {r, r, r}}, 0.03f,
              right ? kidney_cyst_right : kidney_cyst_left);
      }
    }
  }

  void lungs_and_heart() {
    const float right = 138 + vary(10), left = 126 + vary(10),
                breath = 0.0072f + 0.002f * draws_.uniform(0, 1);
    canvas_.each([=](float x, float y, float z, float bump, std::uint8_t before) -> std::uint8_t {
      if (z < 40 || !(soft(before)) || before == aorta || before == vena_cava ||
          before == aorta_plaque)
        return before;
      const float dx = x - (x > 0 ? 76.0f : -84.0f), dy = y + 4;
      const float dome = (x > 0 ? right : left) - breath * (dx * dx + dy * dy) + 2.5f * bump;
      if (z < dome) return before;
      if (std::abs(x) < 22 && y < 40) return inner_fat;
      return z < dome + 4 ? muscle : lung;
    });
    const Spot at = near(-22, 30, 182, 6);
    canvas_.paint(Blob{at, {60, 42, 44}, -25, 0}, 0.05f,
                  [](float, float, float, float depth, std::uint8_t before) -> std::uint8_t {
                    if (before != lung && before != inner_fat) return before;
                    return depth > 0.85f ? inner_fat : heart;
                  });
  }

  void pelvis() {
    const float lower = vary(6);
    const auto rigid = [&](const Blob& blob, float shell) {
      canvas_.paint(blob, 0.05f,
                    [=](float, float, float, float depth, std::uint8_t before) -> std::uint8_t {
                      if (before == air || before == skin_fat || before == table) return before;
                      return depth > shell ? bone : marrow;
                    });
    };
    for (const float side : {-1.0f, 1.0f}) {
      rigid({{side * 84, -28, -112 + lower}, {54, 9, 52}, side * 38, side * -14}, 0.62f);
      rigid({{side * 90, 0, -182 + lower}, {26, 26, 26}, 0, 0}, 0.72f);
      rigid({{side * 62, 16, -186 + lower}, {34, 10, 16}, side * -25, 0}, 0.6f);
    }
    rigid({{0, -66, -128 + lower}, {44, 17, 48}, 0, 0}, 0.7f);
    const float full = draws_.uniform(0.55f, 1.2f);
    organ(Blob{near(0, 26, -152 + lower, 5),
               {47 * full, 37 * full * size(), 36 * full * size()},
               vary(10),
               vary(10)},
          0.05f, bladder);
    organ(Blob{near(0, -12, -160 + lower, 5), {30, 14, 26}, vary(10), vary(10)}, 0.08f, bowel);
  }

  Canvas& canvas_;
  Draws& draws_;
  Spot porta_;  // where the portal vein enters the liver
};

}  // namespace segmed::phantom
