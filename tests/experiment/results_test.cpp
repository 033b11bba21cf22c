// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <string>
#include <sys/resource.h>
#include <unistd.h>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/core/json.hpp>
#include <segmed/core/random.hpp>
#include <segmed/experiment/comparison.hpp>
#include <segmed/experiment/tables.hpp>

using namespace segmed;

namespace {

struct Folder {
  std::string path;
  Folder() {
    const char* base = std::getenv("TMPDIR");
    path = std::string(base != nullptr ? base : "/tmp") + "/segmed_results_XXXXXX";
    REQUIRE(mkdtemp(path.data()) != nullptr);
  }
  ~Folder() {
    for (const char* name :
         {"results.json", "results.csv", "gains.csv", "differences.csv", "table.tex", "a.txt"})
      ::unlink((path + "/" + name).c_str());
    ::rmdir(path.c_str());
  }
};

RunResult run(const std::string& policy, Index seed, Index d1, double better) {
  const Philox random{std::uint64_t(seed), Purpose::noise};
  RunResult made{policy, seed, 10, d1, 2.0, 240, {}};
  for (Index k = 0; k < 12; ++k) {
    CaseResult one{"case_" + std::to_string(k), AnnotatedSet::all(3), {}, {}};
    one.dice = {0.8 + 0.1 * random.uniform(k) + better, k == 3 ? undefined : 0.7 + better};
    one.hd95 = {1.5, undefined};
    if (k == 5) one.annotated = one.annotated.without(2), one.dice[1] = undefined;
    made.cases.push_back(one);
  }
  return made;
}
Results example() {
  Results results;
  results.classes = {"Anterior", "Posterior"};
  for (Index seed = 0; seed < 3; ++seed) {
    results.runs.push_back(run("supervised", seed, 0, 0));
    results.runs.push_back(run("partial_completion", seed, 60, 0.02 + 0.001 * double(seed)));
  }
  compare_runs(results);
  return results;
}

}  // namespace

TEST_SUITE("experiment/results") {
  TEST_CASE("a case's mean is over its defined classes, a run's over its cases") {
    RunResult one{"supervised", 0, 1, 0, 1, 1, {}};
    one.cases.push_back({"a", AnnotatedSet::all(3), {0.5, undefined}, {2, undefined}});
    one.cases.push_back({"b", AnnotatedSet::all(3), {0.8, 1.0}, {1, 3}});
    one.cases.push_back(
        {"c", AnnotatedSet::all(3), {undefined, undefined}, {undefined, undefined}});
    CHECK(one.mean_dice() == doctest::Approx((0.5 + 0.9) / 2));
    CHECK(one.mean_hd95() == doctest::Approx(2));
    CHECK(one.class_mean(&CaseResult::dice, 0) == doctest::Approx(0.65));
    CHECK(one.class_mean(&CaseResult::dice, 1) == doctest::Approx(1));
    CHECK(std::isnan(one.class_mean(&CaseResult::dice, 7)));
  }
  TEST_CASE("a gain is the mean of M_1 minus the mean of M_0, per seed and over seeds") {
    const Results results = example();
    REQUIRE(results.gains.size() == 1);
    const GainResult& gain = results.gains[0];
    CHECK(gain.policy == "partial_completion");
    CHECK(gain.d0 == 10);
    CHECK(gain.d1 == 60);
    REQUIRE(gain.seeds.size() == 3);
    for (std::size_t s = 0; s < 3; ++s) {
      CHECK(gain.seeds[s] == doctest::Approx(0.02 + 0.001 * double(s)));
      CHECK(gain.seeds[s] ==
            doctest::Approx(results.runs[2 * s + 1].mean_dice() - results.runs[2 * s].mean_dice()));
    }
    CHECK(gain.gain == doctest::Approx(0.021));
    // Student's, of three seeds that differ by 0.001 and cases that do not.
    CHECK(gain.low == doctest::Approx(0.021 - 4.302653 * 0.001 / std::sqrt(3.0)).epsilon(1e-3));
    CHECK(gain.high == doctest::Approx(0.021 + 4.302653 * 0.001 / std::sqrt(3.0)).epsilon(1e-3));
    CHECK(gain.p < 0.001);
  }
  TEST_CASE("a run whose partner is missing waits, and other cases are refused") {
    Results results;
    results.classes = {"a", "b"};
    results.runs = {run("mean_teacher", 0, 60, 0), run("supervised", 1, 0, 0)};
    compare_runs(results);
    CHECK(results.gains.empty());
    results.runs.push_back(run("supervised", 0, 0, 0));
    compare_runs(results);
    REQUIRE(results.gains.size() == 1);
    CHECK(results.gains[0].gain == 0);
    CHECK(results.gains[0].p == 1);
    results.runs[2].cases[4].id = "other";
    CHECK_THROWS_WITH_AS(compare_runs(results),
                         "segmed: compare: mean_teacher and supervised of seed 0 were evaluated on "
                         "different cases",
                         DataError);
  }
  TEST_CASE("results.json has the members that a program reads") {
    const Json json = to_json(example());
    CHECK(json.at("classes").dump() == R"(["Anterior","Posterior"])");
    const Json& first = json.at("runs").as_array()[0];
    CHECK(first.at("policy").as_string() == "supervised");
    CHECK(first.at("d1").as_index() == 0);
    CHECK(first.at("steps").as_index() == 240);
    CHECK(first.at("minutes").as_number() == 2);
    CHECK(first.at("dice").at("mean").as_number() == example().runs[0].mean_dice());
    CHECK(first.at("dice").at("per_class").at("Posterior").as_number() == doctest::Approx(0.7));
    const auto& cases = first.at("cases").as_array();
    CHECK(cases[3].at("id").as_string() == "case_3");
    CHECK(cases[3].at("dice").at("Posterior").is_null());
    CHECK_FALSE(cases[5].at("dice").has("Posterior"));
    const Json& gain = json.at("gains").as_array()[0];
    for (const char* name : {"policy", "d0", "d1", "gain", "low", "high", "p", "seeds"})
      CHECK(gain.has(name));
    CHECK(gain.at("seeds").as_array().size() == 3);
  }
  TEST_CASE("an evaluation has means, classes and cases") {
    auto truth = make_volume<std::uint8_t>({3, 3, 3});
    truth.at(1, 1, 1) = 1;
    CaseScore score = score_case(truth, truth, AnnotatedSet::all(4).without(3), 4);
    score.id = "a";
    const Json json = evaluation_json({"x", "y", "z"}, {score});
    CHECK(json.at("mean").at("dice").as_number() == 1);
    CHECK(json.at("mean").at("hd95").as_number() == 0);
    CHECK(json.at("per_class").at("x").at("found").as_index() == 1);
    CHECK(json.at("per_class").at("y").at("dice").is_null());
    CHECK(json.at("per_class").at("z").at("cases").as_index() == 0);
    CHECK(json.at("cases").as_array()[0].at("dice").dump() == R"({"x":1,"y":null})");
  }
  TEST_CASE("what was written is read back with the same bits") {
    const Folder folder;
    Results results = example();
    results.settings = Json::Object{{"steps", 240}};
    results.runs[0].learnt_from = "0123", results.runs[0].skipped = 2;
    results.runs[1].left_out = {"case_7: cannot be read"};
    write_results(folder.path, results);
    const Results back = read_results(folder.path + "/results.json");
    CHECK(to_json(back) == to_json(results));
    CHECK(back.settings == results.settings);
    CHECK(back.runs[0].learnt_from == "0123");
    CHECK(back.runs[0].skipped == 2);
    CHECK(back.runs[1].left_out == results.runs[1].left_out);
    CHECK(to_csv(back) == to_csv(results));
    CHECK(back.find("partial_completion", 2, 10, 60) != nullptr);
    CHECK(back.find("partial_completion", 3, 10, 60) == nullptr);
    CHECK(read_bytes(folder.path + "/table.tex").find("partial\\_completion & 10 & 60") !=
          std::string::npos);
    const std::string csv = read_bytes(folder.path + "/results.csv");
    CHECK(csv.find("policy,seed,d0,d1,minutes,steps,case,class,dice,hd95_mm,hide,"
                   "warm_start\n") == 0);
    CHECK(csv.find("supervised,0,10,0,2,240,case_3,Posterior,,,,0\n") != std::string::npos);
    CHECK(csv.find("case_5,Posterior") == std::string::npos);
  }
  TEST_CASE("ways of hiding are kept apart, and results from before there were any are read") {
    Results results = example();
    for (Index seed = 0; seed < 3; ++seed) {
      results.runs.push_back(run("partial_completion", seed, 60, 0.01));
      results.runs.back().hide = "classes:1", results.runs.back().hidden = 0.5;
      results.runs.back().warm = true;
    }
    compare_runs(results);
    REQUIRE(results.gains.size() == 2);
    CHECK(results.hides_differ());
    CHECK(results.gains[0].hide.empty());
    CHECK(results.gains[1].hide == "classes:1");
    CHECK(results.gains[1].hidden == 0.5);
    CHECK(results.gains[1].gain == doctest::Approx(0.01));
    CHECK(results.best() == &results.gains[0]);
    CHECK(results.runs_of(results.gains[1]).size() == 3);
    const Results back = results_of(to_json(results));
    CHECK(to_json(back) == to_json(results));
    CHECK(back.runs.back().warm);
    CHECK(gains_csv(back).find("\npartial_completion,10,60,classes:1,0.5,3,") != std::string::npos);
    CHECK(to_tex(back).find("classes:1 & 10 & 60") != std::string::npos);
    const Json old = parse_json(
        R"({"classes":["a"],"runs":[{"policy":"p","seed":0,"d0":1,"d1":2,"minutes":1,"steps":1,)"
        R"("cases":[{"id":"x","dice":{"a":1}}]}],"gains":[]})",
        "old");
    CHECK(results_of(old).runs[0].hide.empty());
    CHECK_FALSE(results_of(old).runs[0].warm);
  }
  TEST_CASE("a larger gain of fewer seeds does not lead") {
    Results results = example();
    results.runs.push_back(run("lucky", 1, 60, 0.2));
    compare_runs(results);
    REQUIRE(results.gains.size() == 2);
    CHECK(results.gains[1].gain > results.gains[0].gain);
    CHECK(results.best()->policy != "lucky");
    CHECK(Results::leads(results.gains[0], results.gains[1]));
    CHECK_FALSE(Results::leads(results.gains[0], results.gains[0]));
  }
  TEST_CASE("policies beside each other: paired by seed, size and hiding, and over all of them") {
    Results results;
    results.classes = {"Anterior", "Posterior"};
    for (Index seed = 0; seed < 3; ++seed) {
      results.runs.push_back(run("supervised", seed, 0, 0));
      for (const Index d1 : {20, 60}) {
        results.runs.push_back(run("marginal", seed, d1, 0.01));
        const double more = 0.001 * double(d1) / 20 * double(seed + 1);
        if (d1 == 20 || seed < 2)
          results.runs.push_back(run("partial_completion", seed, d1, 0.01 + more));
      }
      results.runs.push_back(run("rdrop", seed, 20, 0.02));
    }
    compare_runs(results);
    compare_with(results, "marginal");
    REQUIRE(results.differences.size() == 4);
    const auto& all = results.differences;
    for (const GainResult& one : all) CHECK(one.against == "marginal");
    CHECK(all[0].policy == "partial_completion");
    CHECK(all[0].d1 == 20);
    CHECK(all[0].seeds.size() == 3);
    CHECK(all[0].gain == doctest::Approx(0.002));
    CHECK(all[0].low < 0.002);
    CHECK(all[0].p < 0.01);
    CHECK(all[1].d1 == 60);
    CHECK(all[1].seeds.size() == 2);
    CHECK(all[1].gain == doctest::Approx(0.0045));
    // Of the two seeds that finished both sizes: 0.002 and 0.004.
    CHECK(all[2].together);
    REQUIRE(all[2].seeds.size() == 2);
    CHECK(all[2].seeds[0] == doctest::Approx(0.002));
    CHECK(all[2].seeds[1] == doctest::Approx(0.004));
    CHECK(all[3].policy == "rdrop");
    CHECK(all[3].gain == doctest::Approx(0.01));
    CHECK(compared_with(results) == std::vector<std::string>{"marginal"});
    compare_with(results, "marginal");  // again: the same, not twice
    CHECK(results.differences.size() == 4);
    compare_with(results, "rdrop");
    CHECK(results.differences.size() == 6);
    CHECK(compared_with(results) == std::vector<std::string>{"marginal", "rdrop"});
    const Results back = results_of(to_json(results));
    CHECK(to_json(back) == to_json(results));
    CHECK(back.differences[2].together);
    const std::string csv = differences_csv(back);
    CHECK(csv.find("\npartial_completion,marginal,10,all,all,2,") != std::string::npos);
    CHECK(csv.find("\nrdrop,marginal,10,20,,3,") != std::string::npos);
    CHECK(to_tex(back).find("partial\\_completion & marginal & all & $+0.0030$") !=
          std::string::npos);
    results.runs[1].cases[4].id = "other";
    CHECK_THROWS_AS(compare_with(results, "marginal"), DataError);
  }
  TEST_CASE("runs of several programs are named") {
    Results results = example();
    CHECK(mixture(results).empty());
    for (RunResult& run : results.runs) run.made_by = "segmed 1";
    CHECK(mixture(results).empty());
    results.runs[2].made_by = "segmed 2", results.runs[3].made_by = "";
    CHECK(mixture(results) ==
          "The runs were made by several programs, which round differently and take different time "
          "for a step: 4 runs by segmed 1; 1 run by segmed 2.");
    CHECK(results_of(to_json(results)).runs[2].made_by == "segmed 2");
  }
  TEST_CASE("the result is read out in a sentence") {
    CHECK(reading(Results{}).empty());
    Results results;
    results.gains.push_back({"mean_teacher", 5, 100, 0.02, 0.01, 0.03, 0.0004, {0.02}});
    CHECK(reading(results) ==
          "With 100 further cases, mean_teacher gains 0.0200 Dice over 5 annotated cases alone "
          "(95 % interval +0.0100 to +0.0300, p < 0.001).");
    results.gains[0] = {"mean_teacher", 1, 1, -0.02, -0.03, 0.01, 0.2, {}};
    CHECK(reading(results) ==
          "With 1 further case, mean_teacher makes no clear difference to 1 annotated case alone: "
          "-0.0200 Dice (95 % interval -0.0300 to +0.0100, p = 0.200).");
    results.gains[0].high = -0.01;
    CHECK(reading(results).find("loses 0.0200 Dice against 1 annotated case") != std::string::npos);
  }
  TEST_CASE("a results.json that is something else is refused") {
    const Folder folder;
    const std::string path = folder.path + "/results.json";
    CHECK_THROWS_AS(read_results(path), FileError);
    for (const char* text :
         {"", "{", "[]", "{}", R"({"classes":[1],"runs":[],"gains":[]})",
          R"({"classes":[],"runs":[{}],"gains":[]})",
          R"({"classes":["a"],"runs":[{"policy":"p","seed":0,"d0":1,"d1":0,)"
          R"("minutes":1,"steps":1,"cases":[{"id":"x","dice":{"b":1}}]}],"gains":[]})"}) {
      write_text(path, text);
      CHECK_THROWS_AS(read_results(path), Error);
    }
  }
  TEST_CASE("a disk that fills up leaves the old file as it was") {
    const Folder folder;
    const std::string path = folder.path + "/a.txt";
    write_text(path, "old");
    rlimit before{};
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit small{4096, before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
    CHECK_THROWS_AS(write_text(path, std::string(100000, 'x')), FileError);
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
    CHECK(read_bytes(path) == "old");
    CHECK_THROWS_AS(write_text(folder.path + "/no/such/folder/a", "x"), FileError);
  }
  TEST_CASE("CSV and LaTeX hold any name") {
    CHECK(csv_field("a,b\"c") == "\"a,b\"\"c\"");
    Results results;
    results.gains.push_back({"a_b&c%", 1, 2, 0.1, undefined, 0.2, 1e-9, {}});
    const std::string tex = to_tex(results);
    CHECK(tex.find("a\\_b\\&c\\% & 1 & 2 & - & - & $+0.1000$ & $-$ to $+0.2000$ & $< 0.001$") !=
          std::string::npos);
  }
}
