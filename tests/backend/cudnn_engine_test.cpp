// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/backend/cudnn/engine.hpp>

namespace {
using namespace segmed;

CudnnProblem problem(Index channels = 16, CudnnSwitches switches = {},
                     CudnnStorage storage = CudnnStorage::float32) {
  Window w;
  w.fine = {2, 8, 8, 8, channels}, w.coarse = w.fine.with_channels(16);
  for (int a = 0; a < 3; ++a) w.kernel[a] = 3, w.padding[a] = 1;
  return cudnn_problem(CudnnPass::forward, storage, switches, w).value();
}
const CudnnMachine hopper{"a GPU", 90, 91900};

// Engines that a test makes up.
struct FakePlan {
  Index number;
};
struct Fake {
  struct One {
    CudnnEngine engine = {};
    bool builds = true;
    Index workspace = 0;
    float off = 0;
    double milliseconds = 1;
  };
  std::vector<One> all;
  std::vector<Index> built;

  std::vector<CudnnEngine> engines() const {
    std::vector<CudnnEngine> out;
    for (const One& one : all) out.push_back(one.engine);
    return out;
  }
  std::unique_ptr<FakePlan> build(std::size_t i) {
    built.push_back(Index(i));
    return all[i].builds ? std::make_unique<FakePlan>(FakePlan{Index(i)}) : nullptr;
  }
  const One& of(const FakePlan& plan) const { return all[std::size_t(plan.number)]; }
  Index workspace(const FakePlan& plan) const { return of(plan).workspace; }
  float difference(const FakePlan& plan) const { return of(plan).off; }
  double milliseconds(const FakePlan& plan) const { return of(plan).milliseconds; }
};
Index note(CudnnNote which) { return Index(which); }

}  // namespace

TEST_SUITE("backend/cudnn engines") {
  TEST_CASE("engines are admitted by what cuDNN says of their numbers") {
    using enum CudnnNote;
    const auto admits = [](const CudnnProblem& p, std::vector<CudnnNote> notes) {
      CudnnEngine engine{.index = 1};
      for (const CudnnNote one : notes) engine.notes.push_back(note(one));
      return admitted(p, engine);
    };
    const CudnnProblem fast = problem(16, {.tf32 = true}), exact = problem(),
                       loose = problem(16, {.tf32 = true, .nondeterministic = true}),
                       half = problem(16, {}, CudnnStorage::bfloat16);
    for (const CudnnProblem& p : {fast, exact, loose, half}) {
      CHECK(admits(p, {}));
      CHECK_FALSE(admits(p, {tensor_core, down_convert_inputs}));
      CHECK_FALSE(admits(p, {reduced_precision_reduction}));
    }
    CHECK(admits(fast, {tensor_core}));
    CHECK(admits(fast, {winograd, winograd_4x4}));
    CHECK_FALSE(admits(exact, {tensor_core}));
    CHECK_FALSE(admits(exact, {fft}));
    CHECK_FALSE(admits(exact, {winograd_6x6}));
    CHECK(admits(half, {tensor_core}));  // its products are exact whatever TF32 is
    CHECK_FALSE(admits(fast, {nondeterministic}));
    CHECK(admits(loose, {tensor_core, nondeterministic}));
  }
  TEST_CASE("the first engine that is right is taken") {
    Fake fake;
    fake.all.push_back({.engine = {.index = 3, .notes = {note(CudnnNote::nondeterministic)}}});
    fake.all.push_back({.engine = {.index = 4}, .builds = false});
    fake.all.push_back({.engine = {.index = 5}, .workspace = Index{1} << 40});
    fake.all.push_back({.engine = {.index = 6, .knobs = {{2, 14}}}, .off = 0.5f});
    fake.all.push_back({.engine = {.index = 6, .knobs = {{2, 14}}}});  // proposed twice
    fake.all.push_back({.engine = {.index = 6, .knobs = {{2, 15}}}, .off = NAN});
    fake.all.push_back({.engine = {.index = 7}, .milliseconds = 5});
    fake.all.push_back({.engine = {.index = 8}, .milliseconds = 2});
    fake.all.push_back({.engine = {.index = 9}, .milliseconds = 3});
    fake.all.push_back({.engine = {.index = 10}, .milliseconds = 1});

    const auto first = choose_plan<FakePlan>(problem(), fake, 1e-3f);
    REQUIRE(first.plan);
    CHECK(first.plan->number == 6);
    CHECK(first.engine.index == 7);
    CHECK(fake.built == std::vector<Index>{1, 2, 3, 5, 6});
    std::string refused;
    for (const CudnnRefusal& one : first.refused) refused += one.engine + ": " + one.why + "\n";
    CHECK(refused ==
          "engine 3: not admitted\nengine 4: cannot be built\nengine 5: wants 1099511627776 bytes\n"
          "engine 6 2=14: wrong by 0.500000\nengine 6 2=15: wrong by nan\n");

    const auto fastest = choose_plan<FakePlan>(problem(), fake, 1e-3f, 3);
    REQUIRE(fastest.plan);
    CHECK(fastest.engine.index == 8);  // the fourth right one was not timed
    CHECK(fastest.milliseconds == 2.0);

    const CudnnEngine wanted{.index = 9}, wrong{.index = 6, .knobs = {{2, 14}}}, none{.index = 77};
    CHECK(choose_plan<FakePlan>(problem(), fake, 1e-3f, 0, &wanted).plan->number == 8);
    CHECK_FALSE(choose_plan<FakePlan>(problem(), fake, 1e-3f, 0, &wrong).plan);
    CHECK_FALSE(choose_plan<FakePlan>(problem(), fake, 1e-3f, 0, &none).plan);
    fake.all.clear();
    CHECK_FALSE(choose_plan<FakePlan>(problem(), fake, 1e-3f).plan);
  }
  TEST_CASE("what became of a graph is said in one line") {
    const Index bad = note(CudnnNote::nondeterministic);
    Fake fake;
    for (Index i = 0; i < 3; ++i) fake.all.push_back({.engine = {.index = i, .notes = {bad}}});
    fake.all.push_back({.engine = {.index = 4}, .builds = false});
    auto none = choose_plan<FakePlan>(problem(), fake, 1e-3f);
    CHECK(none.text() ==
          "plain kernels, since no engine does it; 1 cannot be built, 3 not admitted");
    fake.all.push_back({.engine = {.index = 40, .knobs = {{2, 3}}}, .milliseconds = 0.125});
    CHECK(choose_plan<FakePlan>(problem(), fake, 1e-3f).text() ==
          "engine 40 2=3; before it 1 cannot be built, 3 not admitted");
    auto timed = choose_plan<FakePlan>(problem(), fake, 1e-3f, 4);
    timed.checked = false;
    CHECK(timed.text() ==
          "engine 40 2=3, unchecked for want of memory, 0.125 ms; before it 1 cannot be built, "
          "3 not admitted");
    CHECK(CudnnChoice<FakePlan>{}.text() == "plain kernels, since cuDNN offers no engine");
  }
  TEST_CASE("a tail stays in its graph where that is faster") {
    Fake fake;
    fake.all.push_back({.engine = {.index = 7}, .milliseconds = 2});
    const CudnnProblem p = problem().with_tail({.bias = true});
    auto kept = choose_plan<FakePlan>(p, fake, 1e-3f, 4);
    keep_if_faster(kept, 2.5);
    CHECK(kept.plan);
    CHECK(kept.text(true) == "engine 7, 2 ms");
    keep_if_faster(kept, 1.5);
    CHECK_FALSE(kept.plan);
    CHECK(kept.engine.is_apart());
    CHECK(kept.text(true) ==
          "in two steps, 1.5 ms, since no engine does all; 1 not faster (2 ms, 1.5 ms apart)");
    keep_if_faster(kept, 1);  // there is nothing to give up
    CHECK(kept.milliseconds == 1.5);
    CHECK(CudnnChoice<FakePlan>{}.text(true) == "in two steps, since cuDNN offers no engine");
  }
  TEST_CASE("a tuning table knows tails, and one from before them keeps them apart") {
    const CudnnProblem bare = problem(), fused = bare.with_tail({.bias = true, .leak = 0.2f}),
                       slow = problem(32).with_tail({.bias = true}),
                       unknown = problem(64).with_tail({.bias = true});
    TuningTable table;
    table.record(hopper, bare, {.index = 12}, 0.5);
    table.record(hopper, fused, {.index = 40, .knobs = {{2, 3}}}, 0.5);
    table.record(hopper, slow, CudnnEngine::apart(), 0.75);
    const Json json = table.json();
    CHECK(json.at("version").as_index() == 2);
    const TuningTable read = TuningTable::of_json(parse_json(json.dump(2)), hopper);
    CHECK(read.find(bare)->index == 12);
    CHECK(read.find(fused)->same({.index = 40, .knobs = {{2, 3}}}));
    CHECK(read.find(slow)->is_apart());
    CHECK_FALSE(read.find(unknown).has_value());
    CHECK(read.json() == json);

    Json older;
    for (const auto& member : json.as_object())
      if (member.name != "version") older[member.name] = member.value;
    older["graphs"] = Json::Array{json.at("graphs").as_array()[0]};
    REQUIRE(older.at("graphs").as_array()[0].at("graph").as_string() == bare.text());
    TuningTable first = TuningTable::of_json(older, hopper);
    CHECK(first.find(bare)->index == 12);
    for (const CudnnProblem& p : {fused, slow, unknown}) CHECK(first.find(p)->is_apart());
    first.record(hopper, problem(64), {.index = 3}, 0.5);
    CHECK(first.json().at("version").as_index() == 1);  // it stays what it is
    Json later = json;
    later["version"] = 3;
    CHECK_THROWS_WITH_AS(TuningTable::of_json(later, hopper),
                         "segmed: tuning table: it is of version 3, this program knows up to 2; "
                         "tune again",
                         ConfigError);
  }
  TEST_CASE("a tuning table goes through JSON and back") {
    TuningTable table;
    CHECK_FALSE(table.find(problem()).has_value());
    table.record(hopper, problem(16), {.index = 12, .knobs = {{2, 14}, {30, -1}}}, 0.125);
    table.record(hopper, problem(32), {.index = 40}, 1.5);
    table.record(hopper, problem(16), {.index = 13, .knobs = {{2, 3}}}, 0.1);  // anew
    const Json json = table.json();
    const TuningTable read = TuningTable::of_json(parse_json(json.dump(2)), hopper);
    CHECK(read.size() == 2);
    CHECK(read.find(problem(16))->same({.index = 13, .knobs = {{2, 3}}}));
    CHECK(read.find(problem(32))->index == 40);
    CHECK_FALSE(read.find(problem(64)).has_value());
    CHECK_FALSE(read.find(problem(16, {.tf32 = true})).has_value());
    CHECK_FALSE(read.find(problem(16, {}, CudnnStorage::bfloat16)).has_value());
    CHECK(read.json() == json);
    CHECK(TuningTable::of_json(TuningTable{}.json(), hopper).size() == 0);
  }
  TEST_CASE("tables of other machines are refused") {
    TuningTable table;
    table.record(hopper, problem(), {.index = 12}, 0.125);
    const Json json = table.json();
    CHECK(TuningTable::of_json(json, {"another name", 90, 91900}).size() == 1);
    CHECK_THROWS_WITH_AS(
        TuningTable::of_json(json, {"older", 80, 91900}),
        "segmed: tuning table: it was made on a GPU (architecture 90) with cuDNN 9.19.0, this is "
        "older (architecture 80) with cuDNN 9.19.0; tune again",
        ConfigError);
    CHECK_THROWS_AS(TuningTable::of_json(json, {"a GPU", 90, 91901}), ConfigError);
    CHECK_THROWS_AS(table.record({"older", 80, 91900}, problem(), {.index = 1}, 1), ConfigError);
    Json broken = json;
    broken["graphs"].as_array()[0]["knobs"] = Json::Array{Json(Json::Array{1})};
    CHECK_THROWS_AS(TuningTable::of_json(broken, hopper), DataError);
    CHECK_THROWS_AS(TuningTable::of_json(Json(3), hopper), DataError);
  }
}
