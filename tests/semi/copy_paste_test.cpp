// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/semi/copy_paste.hpp>

using namespace trial;

namespace {

/// Cases of one batch pasted by hand.
struct ByHand {
  Doubles image;
  std::vector<std::uint8_t> outside, inside;  // labels
};
/// Case pairs (i, j): voxels of i, of j where the box is.
ByHand by_hand(const PasteBox& box, const Grid& grid, const Samples<F>& a, const Samples<F>& b,
               const std::vector<std::uint8_t>& a_labels, const std::vector<std::uint8_t>& b_labels,
               const std::vector<std::pair<std::size_t, std::size_t>>& pairs) {
  ByHand result;
  const auto a_image = host(a.image), b_image = host(b.image);
  const auto voxels = std::size_t(grid.voxels());
  for (const auto& [i, j] : pairs)
    for (std::size_t v = 0; v < voxels; ++v) {
      const Index at[3] = {Index(v) / grid.width / grid.height, Index(v) / grid.width % grid.height,
                           Index(v) % grid.width};
      bool in = true;
      for (int k = 0; k < 3; ++k)
        if (at[k] < box.begin[k] || at[k] >= box.begin[k] + box.extent[k]) in = false;
      result.image.push_back(in ? b_image[j * voxels + v] : a_image[i * voxels + v]);
      result.outside.push_back(in ? ignored : a_labels[i * voxels + v]);
      result.inside.push_back(in ? b_labels[j * voxels + v] : ignored);
    }
  return result;
}
double criterion(const Net& net, const ByHand& mix, const std::vector<std::uint8_t>& labels,
                 Index cases) {
  const auto image = map_of<F>({cases, 16, 16, 16, 1}, mix.image);
  const auto p = probabilities(net, image);
  return dice(p, labels, 3, std::size_t(cases)) + cross_entropy(p, labels, 3);
}

/// The largest piece by flooding each one from its first voxel.
std::vector<std::uint8_t> flooded(const std::vector<std::uint8_t>& mask, const Extent3& e) {
  std::vector<std::uint8_t> seen(mask.size()), kept(mask.size());
  std::vector<Index> largest;
  for (Index seed = 0; seed < Index(mask.size()); ++seed) {
    std::vector<Index> piece;
    const auto take = [&](Index x, Index y, Index z) {
      const bool inside = std::min({x, y, z}) >= 0 && x < e[0] && y < e[1] && z < e[2];
      const Index v = (z * e[1] + y) * e[0] + x;
      if (!inside || mask[std::size_t(v)] == 0 || seen[std::size_t(v)]) return;
      seen[std::size_t(v)] = 1;
      piece.push_back(v);
    };
    take(seed % e[0], seed / e[0] % e[1], seed / e[0] / e[1]);
    for (std::size_t i = 0; i < piece.size(); ++i)
      for (Index n = 0; n < 27; ++n)
        take(piece[i] % e[0] + n % 3 - 1, piece[i] / e[0] % e[1] + n / 3 % 3 - 1,
             piece[i] / e[0] / e[1] + n / 9 - 1);
    if (piece.size() > largest.size()) largest = piece;
  }
  for (const Index v : largest) kept[std::size_t(v)] = 1;
  return kept;
}

}  // namespace

TEST_SUITE("semi/copy_paste") {
  TEST_CASE("the largest piece is that of a flood, for masks of any density") {
    for (const Extent3& e : {Extent3{11, 9, 7}, Extent3{13, 6, 1}, Extent3{1, 5, 9}})
      for (std::uint32_t n = 0; n < 40; ++n) {
        std::vector<std::uint8_t> mask;
        for (Index v = 0; v < e[0] * e[1] * e[2]; ++v)
          mask.push_back(Philox{5, Purpose::sample, n}.uniform(v) < 0.02f * float(n));
        CHECK(largest_component(mask, e) == flooded(mask, e));
      }
  }
  TEST_CASE("of every class the largest piece stays, and what was drawn") {
    // Two cases of one slice; the first has class 1 annotated, so that its pieces were drawn.
    const Grid grid{2, 1, 4, 5, 1};
    const std::vector<std::uint8_t> answers = {1, 0, 2, 0, 1,  //
                                               1, 0, 0, 2, 0,  //
                                               0, 2, 0, 0, 2,  //
                                               2, 2, 0, 0, 0,  //
                                               1, 0, 2, 0, 1,  //
                                               1, 0, 0, 2, 0,  //
                                               0, 2, 0, 0, 2,  //
                                               2, 2, 0, 0, 2};
    auto people = answers;
    for (auto& label : people) label = label == 1 ? 1 : 0;
    for (std::size_t v = 20; v < 40; ++v) people[v] = ignored;
    const auto drawn = labels_of<Cpu>(grid, people, {AnnotatedSet{}.with(1), AnnotatedSet{}});
    const auto kept = largest_pieces(labels_of<Cpu>(grid, answers, 3), drawn, 3).classes.host();
    CHECK(kept == std::vector<std::uint8_t>{1, 0, 2, 0, 1,  //
                                            1, 0, 0, 2, 0,  //
                                            0, 0, 0, 0, 2,  //
                                            0, 0, 0, 0, 0,  //
                                            1, 0, 2, 0, 0,  //
                                            1, 0, 0, 2, 0,  //
                                            0, 0, 0, 0, 2,  //
                                            0, 0, 0, 0, 2});
    CHECK(largest_component({1, 0, 1, 1, 0, 0, 0, 1}, {2, 2, 2}) ==
          std::vector<std::uint8_t>{1, 0, 1, 1, 0, 0, 0, 1});
    CHECK(largest_component({0, 0, 0}, {3, 1, 1}) == std::vector<std::uint8_t>(3));
  }
  TEST_CASE("the box is two thirds of any extents, within them, and elsewhere in other steps") {
    // The script draws places for 112 x 112 x 80 whatever the patch is.
    std::set<std::vector<Index>> places;
    for (const Grid& grid : {Grid{1, 80, 112, 112, 1}, Grid{1, 9, 17, 30, 1}, Grid{1, 1, 16, 24, 1},
                             Grid{1, 1, 1, 2, 1}})
      for (std::uint32_t step = 0; step < 50; ++step) {
        Draws::current() = {1, step, 0};
        const PasteBox box = PasteBox::draw(grid, 2.0f / 3);
        const Index extents[3] = {grid.depth, grid.height, grid.width};
        for (int a = 0; a < 3; ++a) {
          CHECK(box.extent[a] == std::max<Index>(1, extents[a] * 2 / 3));
          CHECK(box.begin[a] >= 0);
          CHECK(box.begin[a] + box.extent[a] <= extents[a]);
        }
        if (grid.depth == 80) places.insert({box.begin[0], box.begin[1], box.begin[2]});
      }
    CHECK(places.size() > 45);
  }
  TEST_CASE("labels and answers are mixed both ways, with a weight each") {
    for (const bool largest : {false, true}) {
      OneStep step;
      Net net = small_net();
      CopyPaste<Net> policy{.teacher = {small_net(2)}, .largest = largest};
      auto now = step.now(net);
      const double term = policy.supervised(now).host();
      CHECK_FALSE(policy.loss(now));
      CHECK(Draws::current().stream == 1);

      step.now(net);  // the same draws
      const PasteBox box = PasteBox::draw(step.full.image.grid(), policy.side);
      auto answers =
          completed(step.partial.labels, host(policy.teacher.module(step.partial.image)));
      const auto known = step.full.labels.classes.host();
      if (largest) {
        const auto all = labels_of<Cpu>(step.full.image.grid(), answers, 3);
        answers = largest_pieces(all, step.partial.labels, 3).classes.host();
      }
      const Grid grid = step.full.image.grid();
      const auto to = by_hand(box, grid, step.full, step.partial, known, answers, {{0, 0}});
      const auto from = by_hand(box, grid, step.partial, step.full, answers, known, {{1, 1}});
      const double expected =
          criterion(net, to, to.outside, 1) + 0.5 * criterion(net, to, to.inside, 1) +
          0.5 * criterion(net, from, from.outside, 1) + criterion(net, from, from.inside, 1);
      CHECK(term == doctest::Approx(expected).epsilon(1e-5));
    }
  }
  TEST_CASE("batches of other sizes meet in turn") {
    OneStep step;
    step.full = made_up<F>({everything(), everything(), everything()}, 1);
    step.partial = made_up<F>({AnnotatedSet{}}, 2);
    Net net = small_net();
    CopyPaste<Net> policy{.teacher = {small_net(2)}, .largest = false};
    auto now = step.now(net);
    const double term = policy.supervised(now).host();
    step.now(net);
    const PasteBox box = PasteBox::draw(step.full.image.grid(), policy.side);
    const auto answers =
        completed(step.partial.labels, host(policy.teacher.module(step.partial.image)));
    const auto known = step.full.labels.classes.host();
    const Grid grid = step.full.image.grid();
    const auto to = by_hand(box, grid, step.full, step.partial, known, answers, {{0, 0}, {1, 0}});
    const auto from = by_hand(box, grid, step.partial, step.full, answers, known, {{0, 1}, {0, 2}});
    const double expected =
        criterion(net, to, to.outside, 2) + 0.5 * criterion(net, to, to.inside, 2) +
        0.5 * criterion(net, from, from.outside, 2) + criterion(net, from, from.inside, 2);
    CHECK(term == doctest::Approx(expected).epsilon(1e-5));
  }
  TEST_CASE("at first, and without D_1, mixtures are within D_0") {
    OneStep step;
    Net net = small_net();
    CopyPaste<Net> policy{.teacher = {small_net(2)}, .after = 0.6f};
    auto now = step.now(net);
    const double term = policy.supervised(now).host();
    step.now(net);
    const PasteBox box = PasteBox::draw(step.full.image.grid(), policy.side);
    const auto known = step.full.labels.classes.host();
    auto mix =
        by_hand(box, step.full.image.grid(), step.full, step.full, known, known, {{0, 1}, {1, 0}});
    for (std::size_t v = 0; v < mix.inside.size(); ++v)
      if (mix.inside[v] != ignored) mix.outside[v] = mix.inside[v];
    CHECK(term == doctest::Approx(criterion(net, mix, mix.outside, 2)).epsilon(1e-5));
    policy.after = 0;
    step.partial = {};
    auto alone = step.now(net);
    CHECK(policy.supervised(alone).host() == term);
  }
  TEST_CASE("the teacher follows the student and is trained by nothing else") {
    OneStep step;
    Net net = small_net();
    CopyPaste<Net> policy{.teacher = {small_net(2)}};
    Group<float, Cpu> student(Role::trained, net, policy);
    CHECK(student.params().size() == Inventory(net).leaves.size());
    auto now = step.now(net);
    backward(policy.supervised(now));
    CHECK(student.grads.host() != std::vector<float>(std::size_t(student.grads.size())));
    const auto before = weights_of(policy.teacher.module);
    policy.after_step(now);
    CHECK(weights_of(policy.teacher.module) != before);
  }
  TEST_CASE("boxes and teacher go on bit for bit") {
    check_resumes([](const Net& net) { return CopyPaste<Net>{.teacher = {net}}; });
  }
  TEST_CASE("two dimensions and any network") {
    using Any = AnyNetwork<F2>;
    OneStep<F2> step;
    Any net{small_net_2d()};
    CopyPaste<Any> policy{.teacher = {net}};
    Group<float, Cpu> all(Role::trained, net, policy);
    auto now = step.now(net);
    const auto term = policy.supervised(now);
    CHECK(std::isfinite(term.host()));
    backward(term);
  }
}
