// SPDX-License-Identifier: Apache-2.0
// The binary from end to end on a tiny generated cohort: what a user does on the first day, and
// what goes wrong on the second.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include <segmed/experiment/results.hpp>

using namespace segmed;
namespace fs = std::filesystem;

namespace {

/// A folder that goes with the test, and the binary, if there is one.
struct Workplace {
  fs::path folder = fs::temp_directory_path() / ("segmed_commands_" + std::to_string(getpid()));
  const char* binary = std::getenv("SEGMED_EXPERIMENTS");
  Workplace() {
    fs::remove_all(folder);
    fs::create_directories(folder);
  }
  ~Workplace() { fs::remove_all(folder); }
  /// The exit code; what was printed lies in `said()`.
  int run(const std::string& arguments, const std::string& launcher = {}) const {
    const std::string command = "cd '" + folder.string() + "' && " + launcher + " '" + binary +
                                "' " + arguments + " > said.txt 2>&1";
    return WEXITSTATUS(std::system(command.c_str()));
  }
  /// Generates `data`, four small cases; false, and said so, where there is no binary.
  bool with_cohort() const {
    if (!binary) {
      MESSAGE("skipped: SEGMED_EXPERIMENTS does not name the binary");
      return false;
    }
    REQUIRE(run("phantom --cases 4 --organs 2 --extent 24,24,24 --spacing 16 --out data") == 0);
    return true;
  }
  std::string said() const { return read_bytes((folder / "said.txt").string()); }
};

const std::string small = " --patch 16,16,16 --widths 4,8 --batch 1 --quiet --threads 2 ";

}  // namespace

TEST_SUITE("experiment/commands") {
  TEST_CASE("a cohort is made, judged, compared on, predicted and reported") {
    const Workplace here;
    if (!here.binary) {
      MESSAGE("skipped: SEGMED_EXPERIMENTS does not name the binary");
      return;
    }
    CHECK(here.run("phantom --cases 7 --organs 2 --extent 24,24,24 --spacing 16 --out data") == 0);
    CHECK(here.run("inspect --data data --json") == 0);
    const Json seen = parse_json(here.said(), "inspect");
    CHECK(seen.at("cases").as_array().size() == 7);
    CHECK(seen.at("cases").as_array()[0].at("verdict").as_string() == "ok");

    const std::string gain =
        "gain --data data --d0 2 --d1 2 --val 2 --hide classes:1 --policies "
        "supervised,partial_completion --seeds 1 --steps 3 --out runs" +
        small;
    CHECK_MESSAGE(here.run(gain) == 0, here.said());
    const Results results = read_results((here.folder / "runs/results.json").string());
    REQUIRE(results.runs.size() == 2);
    CHECK(results.runs[0].d1 == 0);
    CHECK(results.runs[1].d1 == 2);
    CHECK(results.runs[0].cases.size() == 2);
    CHECK(results.gains.size() == 1);
    for (const char* name : {"report.html", "results.csv", "gains.csv", "classes.csv",
                             "classes.tex", "table.tex", "manifest.json"})
      CHECK(fs::exists(here.folder / "runs" / name));
    CHECK(parse_json(read_bytes((here.folder / "runs/manifest.json").string()), "manifest")
              .at("hooks")
              .has("partial_completion"));
    // The same command finds everything done; other options are refused.
    CHECK(here.run(gain) == 0);
    CHECK(here.said().find("2 of 2 runs are finished") != std::string::npos);
    CHECK(here.run(gain + " --rate 0.01") == 2);
    CHECK(here.said().find("holds another run") != std::string::npos);
    CHECK(here.run("report runs") == 0);

    const std::string model = "runs/runs/supervised_d0-2_d1-0_seed-1";
    CHECK(here.run("predict --model " + model +
                   " --in data/s0001/ct.nii.gz --out labels --quiet") == 0);
    CHECK(fs::exists(here.folder / "labels/ct.nii.gz"));
    CHECK(here.run("evaluate --pred labels/ct.nii.gz --truth labels/ct.nii.gz --json") == 0);
    CHECK(parse_json(here.said(), "evaluate").at("cases").as_array().size() == 1);
    CHECK(here.run("predict --mirror --model " + model +
                   " --in data/s0001/ct.nii.gz --out mirrored --quiet") == 2);
    CHECK(here.said().find("not trained on mirrored patches") != std::string::npos);
    CHECK(here.run("convert labels/ct.nii.gz turned.nii --orient LPS") == 0);
    CHECK(fs::exists(here.folder / "turned.nii"));
  }
  TEST_CASE("policies are compared with each other, in a run or afterwards") {
    const Workplace here;
    if (!here.with_cohort()) return;
    const std::string gain =
        "gain --data data --d0 1 --d1 1,2 --val 1 --hide classes:1 --policies "
        "supervised,marginal,entropy --seeds 2 --steps 1 --out runs" +
        small;
    const auto results = [&] { return read_results((here.folder / "runs/results.json").string()); };
    CHECK(here.run(gain + " --against rdrop") == 2);
    CHECK(here.said().find("rdrop is not among those that are compared with M_0; give one of "
                           "marginal, entropy") != std::string::npos);
    CHECK_FALSE(fs::exists(here.folder / "runs"));
    CHECK_MESSAGE(here.run(gain) == 0, here.said());
    CHECK(results().differences.empty());
    CHECK(results().runs[0].made_by.find("segmed ") == 0);
    CHECK(here.run("report runs --against rdrop") == 2);
    CHECK(here.said().find("runs holds no run of rdrop with D_1") != std::string::npos);
    CHECK_MESSAGE(here.run("report runs --against marginal") == 0, here.said());
    CHECK(here.said().find("entropy beside marginal with all of these together: ") !=
          std::string::npos);
    REQUIRE(results().differences.size() == 3);  // two sizes, and both together
    CHECK(results().differences[0].against == "marginal");
    CHECK(
        read_bytes((here.folder / "runs/report.html").string()).find("<h2>Beside marginal</h2>") !=
        std::string::npos);
    CHECK(fs::exists(here.folder / "runs/differences.csv"));
    // What was asked for once is kept, beside what is asked for now.
    CHECK_MESSAGE(here.run(gain + " --against entropy") == 0, here.said());
    CHECK(here.said().find("10 of 10 runs are finished") != std::string::npos);
    CHECK(results().differences.size() == 6);
    CHECK(here.run(gain + " --balance-sources") == 2);  // draws other cases
    CHECK(here.said().find("balance_sources") != std::string::npos);
  }
  TEST_CASE("sources of D_1 are balanced where that is asked for, and the recipe says so") {
    const Workplace here;
    if (!here.with_cohort()) return;
    const std::string train =
        "train --data data --d0 1 --d1 3 --hide cases:0.5 --policy marginal --steps 2" + small;
    CHECK_MESSAGE(here.run(train + " --out even") == 0, here.said());
    CHECK_MESSAGE(here.run(train + " --balance-sources --out balanced") == 0, here.said());
    const auto recipe = [&](const std::string& out) {
      return parse_json(read_bytes((here.folder / out / "manifest.json").string()), "manifest")
          .at("settings")
          .at("recipe");
    };
    CHECK_FALSE(recipe("even").has("balance_sources"));
    CHECK(recipe("balanced").at("balance_sources").as_bool());
  }
  TEST_CASE("an inner split tunes without a look at D_val, and says so") {
    const Workplace here;
    if (!here.binary) {
      MESSAGE("skipped: SEGMED_EXPERIMENTS does not name the binary");
      return;
    }
    CHECK(here.run("phantom --cases 9 --organs 2 --extent 24,24,24 --spacing 16 --out data") == 0);
    const auto gain = [&](const std::string& out, const std::string& more) {
      return here.run(
          "gain --data data --d0 4 --d1 2 --hide everything --policies "
          "supervised,entropy --steps 2 --seeds 2 --out " +
          out + small + more);
    };
    const auto evaluated = [&](const std::string& out) {
      std::set<std::string> ids;
      for (const auto& run : read_results((here.folder / out / "results.json").string()).runs)
        for (const CaseResult& one : run.cases) ids.insert(one.id);
      return ids;
    };
    CHECK_MESSAGE(gain("outer", "--val 2") == 0, here.said());
    CHECK_MESSAGE(gain("inner", "--val 2 --inner 2") == 0, here.said());
    const std::string told =
        "Tuning on an inner split of D_0: 2 to evaluate, 2 to train. D_val, 2 cases, was put aside";
    CHECK(here.said().find(told) != std::string::npos);
    const auto outer = evaluated("outer"), inner = evaluated("inner");
    CHECK(outer.size() == 2);
    CHECK(inner.size() == 2);
    for (const std::string& id : inner) CHECK(outer.count(id) == 0);
    const auto text = [&](const char* name) {
      return read_bytes((here.folder / "inner" / name).string());
    };
    CHECK(parse_json(text("manifest.json"), "manifest").at("evaluated").as_string().find(told) ==
          0);
    CHECK(text("report.html").find("was put aside") != std::string::npos);
    CHECK(text("report.html").find("2 cases in the inner split") != std::string::npos);
    for (const auto& file : fs::recursive_directory_iterator(here.folder / "inner"))
      for (const std::string& id : outer)  // no prediction of D_val
        CHECK(file.path().filename().string().find(id) == std::string::npos);
    CHECK(gain("inner", "--val 2") == 2);  // is another comparison
    CHECK(gain("other", "--inner 2") == 2);
    CHECK(here.said().find("--val, which is put aside") != std::string::npos);
    CHECK(gain("other", "--val 2 --inner 4") == 3);
    CHECK(here.said().find("of the 4 cases of D_0 4 shall evaluate") != std::string::npos);
  }
  TEST_CASE("the device is chosen by name, and one that is not there is an error") {
    const Workplace here;
    if (!here.with_cohort()) return;
    const std::string train =
        "train --data data --val 1 --steps 2 --policy supervised --out model" + small;
    CHECK(here.run(train + "--device quantum") == 2);
    CHECK(here.said().find("give auto, cpu, cuda or cuda:N") != std::string::npos);
    CHECK(here.run(train + "--device cuda:99") == 1);
    const std::string said = here.said();
    CHECK((said.find("built without CUDA") != said.npos ||
           said.find("there is no GPU 99") != said.npos));
    CHECK_MESSAGE(here.run(train + "--device cpu --replay") == 0, here.said());
    CHECK(here.said().find("0 of 2 steps were replayed: the device cannot") != said.npos);
    const Json made =
        parse_json(read_bytes((here.folder / "model/manifest.json").string()), "manifest");
    CHECK(made.at("device").as_string() == "cpu");
    CHECK(made.at("replayed").as_number() == 0);
    CHECK(made.at("replay_refusal").as_string() == "the device cannot");
    // What was computed in another way is not gone on with.
    CHECK(here.run(train + "--device cpu --replay", "env SEGMED_CONV=direct") == 2);
    CHECK(here.said().find("direct convolutions, so its bits would differ") != said.npos);
  }
  TEST_CASE("what is allowed on a GPU changes nothing on the processor, which says so") {
    const Workplace here;
    if (!here.with_cohort()) return;
    const auto train = [&](const std::string& out, const std::string& allowed) {
      return here.run("train --data data --val 1 --steps 1 --device cpu --out " + out + small +
                      allowed);
    };
    const auto arithmetic = [&](const std::string& out) {
      const std::string path = (here.folder / out / "manifest.json").string();
      return parse_json(read_bytes(path), path).at("arithmetic").as_string();
    };
    CHECK_MESSAGE(train("plain", "") == 0, here.said());
    CHECK(here.said().find("changes nothing") == std::string::npos);
    CHECK_MESSAGE(train("allowed", "--tf32 --allow-nondeterministic") == 0, here.said());
    CHECK(here.said().find("--tf32 changes nothing: the processor multiplies floats as floats") !=
          std::string::npos);
    CHECK(here.said().find("--allow-nondeterministic changes nothing: the processor gives the same "
                           "bits in each run") != std::string::npos);
    CHECK(arithmetic("allowed") == arithmetic("plain"));
    CHECK(arithmetic("plain").find("auto convolutions") != std::string::npos);
  }
  TEST_CASE("the processor has nothing to tune, and says so") {
    const Workplace here;
    if (!here.with_cohort()) return;
    CHECK(here.run("tune --data data --out table.json --device cpu" + small) == 2);
    CHECK(here.said().find("there is nothing to tune; give --device cuda") != std::string::npos);
    CHECK_FALSE(fs::exists(here.folder / "table.json"));
    write_text((here.folder / "table.json").string(), "{}");
    CHECK(here.run("train --data data --steps 2 --tuning table.json --device cpu --out model" +
                   small) == 2);
    CHECK(here.said().find("there is nothing to tune") != std::string::npos);
  }
  TEST_CASE("a comparison sweeps sizes and ways of hiding, warm, and is extended by a seed") {
    const Workplace here;
    if (!here.binary) {
      MESSAGE("skipped: SEGMED_EXPERIMENTS does not name the binary");
      return;
    }
    REQUIRE(here.run("phantom --cases 7 --organs 3 --extent 24,24,24 --spacing 16 --out data") ==
            0);
    const std::string gain =
        "gain --preset seed0 --classes spleen,kidney_right,kidney_left --data data --d0 2 --d1 1,2 "
        "--val 2 --hide keep:1,everything --policies mean_teacher --warm-start --steps 2 "
        "--spacing 16,16,16 --out runs" +
        small;
    CHECK_MESSAGE(here.run(gain + "--seeds 1 --first-seed 4") == 0, here.said());
    Results results = read_results((here.folder / "runs/results.json").string());
    REQUIRE(results.runs.size() == 5);  // M_0 comes first, asked for or not
    CHECK(results.runs[0].policy == "supervised");
    CHECK_FALSE(results.runs[0].warm);
    const RunResult* kept = results.find("mean_teacher", 4, 2, 2, "keep:1");
    REQUIRE(kept != nullptr);
    CHECK(kept->warm);
    CHECK(kept->hidden == doctest::Approx(2.0 / 3));
    CHECK(results.find("mean_teacher", 4, 2, 1, "everything")->hidden == 1);
    CHECK(results.gains.size() == 4);
    CHECK(fs::exists(here.folder / "runs/runs/mean_teacher_d0-2_d1-2_seed-4_hide-keep-1"));
    CHECK(fs::exists(here.folder / "runs/gains.csv"));
    CHECK_MESSAGE(here.run(gain + "--seeds 2 --first-seed 4") == 0, here.said());
    CHECK(here.said().find("5 of 10 runs are finished") != std::string::npos);
    CHECK(here.said().find("With ") != std::string::npos);
    results = read_results((here.folder / "runs/results.json").string());
    CHECK(results.runs.size() == 10);
    CHECK(results.gains[0].seeds.size() == 2);

    // Published results go on without the folders of their runs, if they are of this command.
    fs::create_directory(here.folder / "copy");
    fs::copy(here.folder / "runs/results.json", here.folder / "copy/results.json");
    const auto again = [&](const std::string& from, const std::string& to) {
      std::string command = gain;
      const auto put = [&](const std::string& old, const std::string& fresh) {
        command.replace(command.find(old), old.size(), fresh);
      };
      put("--out runs", "--out copy"), put(from, to);
      return here.run(command + "--seeds 2 --first-seed 4");
    };
    const auto refused = [&](const std::string& from, const std::string& to, const char* why) {
      CHECK(again(from, to) == 2);
      CHECK_MESSAGE(here.said().find(why) != std::string::npos, here.said());
      CHECK_FALSE(fs::exists(here.folder / "copy/settings.json"));
    };
    refused("--steps 2", "--steps 3", "with steps 2 instead of 3");
    refused("--val 2", "--val 1", "with val \"2\" instead of \"1\"");
    results.settings = {};  // as older ones
    write_text(here.folder / "copy/results.json", to_json(results).dump());
    refused("--steps 2", "--steps 3", "supervised of seed 4 took 2 steps, not 3");
    refused("--steps 2", "--minutes 9", "took 0.0");
    refused("--val 2", "--val 1", "was evaluated on other cases");
    refused("--warm-start", "", "began with the weights of M_0");
    CHECK_MESSAGE(again("", "") == 0, here.said());
    CHECK(here.said().find("10 of 10 runs are finished") != std::string::npos);
    write_text(here.folder / "copy/report.json", R"({"uses": [{"d1": 1}], "curves": []})");
    CHECK(again("", "") == 3);
    CHECK_MESSAGE(here.said().find("there is no member \"hide\" in copy/report.json; remove it") !=
                      std::string::npos,
                  here.said());
  }
  TEST_CASE("what is wrong with the cases is said before anything is trained") {
    const Workplace here;
    if (!here.with_cohort()) return;
    std::ofstream(here.folder / "a") << "s0000\ns0001\n";
    std::ofstream(here.folder / "b") << "s0001\ns0002\n";
    const auto says = [&](const std::string& options, int code, const std::string& text) {
      CHECK_MESSAGE(here.run("gain --data data --out out --steps 1 --policies marginal " + options +
                             small) == code,
                    here.said());
      CHECK_MESSAGE(here.said().find(text) != std::string::npos, here.said());
      CHECK_FALSE(fs::exists(here.folder / "out"));
    };
    says("--d0 a --d1 b --val 1", 3, "s0001 stands twice, in D_0 and in D_1; take it out");
    says("--d0 a --d1 1 --val b", 3, "stands twice");
    says("--d0 1 --d1 9 --val 1", 3, "D_1 shall have 9 cases, but only 2 are left; ask for fewer");
    says("--d0 9 --d1 1 --val 1", 3, "D_0 shall have 9 cases");
    says("--d0 1 --d1 1 --val 9", 3, "D_val shall have 9 cases");
    says("--d0 1 --d1 1 --val 1 --hide classes:2", 2, "leaves no label in the 1 cases of D_1");
    says("--d0 1 --d1 0 --val 1", 2, "give --d1 the number");
    says("--d0 1 --d1 1", 2, "give --val the number");
    says("--d0 1 --d1 1 --val 1 --seeds 0", 2, "--seeds");
    says("--d0 1,2 --d1 1 --val 1", 2, "\"1,2\" is a list; only --d1 takes several counts");
    const auto refuses = [&](const std::string& policy, const std::string& text) {
      says("--d0 1 --d1 1 --val 1 --policies " + policy, 2, text);
    };
    refuses("rdrop:weigt=2", "there is no option weigt; give one of dropout, weight");
    refuses("marginal:weight=2", "there is no option weight");
    refuses("rdrop:weight=two", "\"weight=two\" is not OPTION=NUMBER, as in rdrop:weight=2");
    refuses("rdrop:weight=1:", "\"\" is not OPTION=NUMBER");
    refuses("rdrop:=1", "\"=1\" is not OPTION=NUMBER");
    refuses("rdrop:weight=1:weight=2", "sets weight twice");
    refuses("rdrop:weight=inf", "option weight is not a number");
    refuses("bcp:largest=0.5", "option largest is 0.5; give 0 for no or 1 for yes");
    refuses("cube_shuffle:parts=1.5", "option parts is 1.5; give a whole number");
    refuses("self_training:rounds=0", "option rounds is 0; give 1 or more");
    refuses("urpc", "the network has 2 resolutions; give --widths three and more");
    refuses("dynamic_head --warm-start", "trains another network than M_0");
    refuses("marginal+mcnet", "policy: marginal and mcnet both replace the term of the labels; ");
    refuses("ict+rdrop+uamt", "policy: ict and uamt both name the network to predict with; ");
    refuses("rdrop+rdrop:weight=2", "policy: rdrop is there twice");
    refuses("supervised+rdrop", "supervised learns from D_0 alone and does not compose");
    refuses("marginal+rdrop:exclusion=1", "rdrop:exclusion=1: there is no option exclusion");
    refuses("marginal+", "there is none named ; give one of supervised, ");
    refuses("7+rdrop", "there is none named 7");
    refuses("urpc+rdrop", "the network has 2 resolutions; give --widths three and more");
    CHECK(here.run("gain --data data --out out --steps 1 --d0 1 --d1 1 --val 1 --policies "
                   "supervised") == 2);
    fs::remove(here.folder / "data/s0001/segmentations/spleen.nii.gz");
    says("--d0 1 --d1 1 --val a", 3, "case s0001 annotates 1 of the 2 classes");
    says("--d0 a --d1 1 --val 1", 3, "put it into D_1, or give --classes");
  }
  TEST_CASE("a finished run is not taken for one of other cases") {
    const Workplace here;
    if (!here.with_cohort()) return;
    const std::string gain =
        "gain --data data --d0 1 --d1 more --val 1 --hide classes:1 --seeds 1 --steps 1 "
        "--policies entropy --out runs" +
        small;
    std::ofstream(here.folder / "more") << "s0000\n";
    REQUIRE_MESSAGE(here.run(gain) == 0, here.said());
    CHECK(here.run(gain) == 0);
    std::ofstream(here.folder / "more") << "s0001\n";
    CHECK(here.run(gain) == 2);
    CHECK(here.said().find("which learnt from other cases") != std::string::npos);
  }
  TEST_CASE("a policy is compared with itself under other options") {
    const Workplace here;
    if (!here.with_cohort()) return;
    REQUIRE_MESSAGE(
        here.run(
            "gain --data data --d0 1 --d1 1 --val 1 --hide classes:1 --seeds 1 --steps 3 "
            "--policies marginal,exclusion,exclusion:exclusion=2,exclusion:exclusion=0 --out runs" +
            small) == 0,
        here.said());
    const Results results = read_results((here.folder / "runs/results.json").string());
    const auto dice = [&](const char* policy) {
      const RunResult* run = results.find(policy, 1, 1, 1, "classes:1");
      REQUIRE(run != nullptr);
      return run->mean_dice();
    };
    CHECK(dice("exclusion") == dice("exclusion:exclusion=2"));  // its default
    CHECK(dice("exclusion:exclusion=0") == dice("marginal"));
    CHECK(dice("exclusion") != dice("marginal"));
    CHECK(fs::exists(here.folder / "runs/runs/exclusion-exclusion-0_d0-1_d1-1_seed-1"));
  }
  TEST_CASE("policies are composed by name, each with its own options") {
    const Workplace here;
    if (!here.with_cohort()) return;
    REQUIRE_MESSAGE(here.run("gain --data data --d0 1 --d1 1 --val 1 --hide classes:1 --seeds 1 "
                             "--steps 3 --out runs --policies marginal,marginal+rdrop:weight=0,"
                             "exclusion:exclusion=1e+1+rdrop:weight=2:dropout=0.5" +
                             small) == 0,
                    here.said());
    const Results results = read_results((here.folder / "runs/results.json").string());
    const auto run = [&](const char* policy) {
      const RunResult* found = results.find(policy, 1, 1, 1, "classes:1");
      REQUIRE(found != nullptr);
      return *found;
    };
    // A part without weight changes nothing.
    CHECK(run("marginal+rdrop:weight=0").mean_dice() == run("marginal").mean_dice());
    CHECK(run("exclusion:exclusion=1e+1+rdrop:weight=2:dropout=0.5").steps == 3);
    CHECK(fs::exists(here.folder / "runs/runs/marginal+rdrop-weight-0_d0-1_d1-1_seed-1"));
    CHECK(fs::exists(here.folder / "runs/report.html"));
    // However long a composition is, its run has a folder.
    const std::string many = "entropy:weight=0.1" + std::string(300, '0') + "+transform";
    REQUIRE_MESSAGE(here.run("gain --data data --d0 1 --d1 1 --val 1 --hide classes:1 --seeds 1 "
                             "--steps 1 --out many --policies " +
                             many + small) == 0,
                    here.said());

    const std::string policy =
        "train --data data --d0 1 --d1 1 --val 1 --hide classes:1 --steps 4 "
        "--policy self_training:rounds=2+mean_teacher+rdrop --out model";
    REQUIRE_MESSAGE(here.run(policy + small) == 0, here.said());
    const Json made =
        parse_json(read_bytes((here.folder / "model/manifest.json").string()), "manifest");
    CHECK(made.at("hooks").dump() ==
          Json::list(std::vector<std::string>{"loss", "supervised", "after_step", "start_round",
                                              "rounds", "predictor", "members", "options", "save"})
              .dump());
    const std::string weights = read_bytes((here.folder / "model/last.safetensors").string());
    CHECK(weights.find("policy.mean_teacher.teacher") != std::string::npos);
    CHECK(weights.find("policy.self_training.relabelled") != std::string::npos);
  }
  TEST_CASE("the policies are listed without any other option") {
    const Workplace here;
    if (!here.binary) {
      MESSAGE("skipped: SEGMED_EXPERIMENTS does not name the binary");
      return;
    }
    CHECK(here.run("gain --list-policies") == 0);
    for (const char* name : {"supervised ", "marginal ", "mean_teacher ", "partial_completion "})
      CHECK(("\n" + here.said()).find(std::string("\n") + name) != std::string::npos);
    for (const char* line :
         {"exclusion:exclusion=1+rdrop:weight=2",
          "replace the term of the labels: marginal, exclusion, ",
          "name the network to predict with: mean_teacher, uamt, ict.", "Alone: supervised."})
      CHECK_MESSAGE(here.said().find(line) != std::string::npos, here.said());
  }
  TEST_CASE("a 2-D network is trained slice by slice, with mirrored patches") {
    const Workplace here;
    if (!here.with_cohort()) return;
    CHECK_MESSAGE(
        here.run("train --data data --val 1 --steps 3 --patch 16,16,1 --widths 4,8 "
                 "--flip xy --elastic 1 --blur 0.5 --low-resolution 0.5 --quiet --out flat") == 0,
        here.said());
    CHECK(here.run("predict --mirror --model flat --in data/s0001/ct.nii.gz --out labels "
                   "--quiet") == 0);
    CHECK(here.run("train --data data --val 1 --steps 3 --flip left --out other") == 2);
    CHECK(here.run("train --data data --val 1 --steps 3 --elastic 2 --out other") == 2);
    CHECK(here.said().find("--elastic: Value 2 not in range") != std::string::npos);
  }
  TEST_CASE("a broken case is left out and the exit code says so") {
    const Workplace here;
    if (!here.with_cohort()) return;
    const auto scan = here.folder / "data/s0002/ct.nii.gz";
    fs::resize_file(scan, fs::file_size(scan) / 2);
    CHECK(here.run("inspect --data data --json") == 7);
    CHECK(here.said().find("quarantined") != std::string::npos);
    CHECK(here.run("train --data data --val 1 --steps 2 --out run" + small) == 7);
    CHECK(fs::exists(here.folder / "run/last.safetensors"));
    CHECK(fs::exists(here.folder / "run/best.safetensors"));
    CHECK(here.run("train --data data --val 1 --steps 2 --strict --out other" + small) == 3);
  }
  TEST_CASE("several processes make one model, deal out runs and scans, and fail together") {
    const Workplace here;
    if (!here.with_cohort()) return;
    const char* launcher = std::getenv("SEGMED_MPIEXEC");
    if (!launcher) {
      MESSAGE("skipped: there is no MPI");
      return;
    }
    const std::string two = std::string("'") + launcher + "' -n 2";
    const std::string shared =
        " --patch 16,16,16 --widths 4,8 --quiet --threads 1 --distributed --batch ";
    const std::string train = "train --data data --val 1 --steps 4 --out ";
    CHECK_MESSAGE(here.run(train + "run" + shared + "2", two) == 0, here.said());
    CHECK(read_results((here.folder / "run/results.json").string()).runs.size() == 1);
    CHECK(here.run(train + "other" + shared + "3", two) == 2);
    CHECK(here.said().find("cannot be shared by 2 ranks") != std::string::npos);
    CHECK(here.run(train + "other", two) == 2);
    CHECK(here.said().find("give --distributed") != std::string::npos);

    const std::string gain =
        "gain --data data --d0 1 --d1 1 --val 1 --hide classes:1 --policies "
        "supervised,partial_completion,mean_teacher --seeds 1 --steps 2 --out runs" +
        shared + "2";
    CHECK_MESSAGE(here.run(gain, two) == 0, here.said());
    const Results results = read_results((here.folder / "runs/results.json").string());
    REQUIRE(results.runs.size() == 3);
    CHECK(results.runs[1].policy == "partial_completion");
    CHECK(results.gains.size() == 2);
    CHECK(here.run("predict --model run --in data/s0001 --out labels --quiet --distributed", two) ==
          0);
    CHECK(fs::exists(here.folder / "labels/ct.nii.gz"));
  }
  TEST_CASE("wrong use is told from bad input") {
    const Workplace here;
    if (!here.binary) {
      MESSAGE("skipped: SEGMED_EXPERIMENTS does not name the binary");
      return;
    }
    CHECK(here.run("") == 2);
    CHECK(here.run("train --data nowhere --out run --steps 1") == 3);
    CHECK(here.run("train --out run --steps 1") == 2);
    CHECK(here.run("gain --data nowhere --steps 1 --out run --policies none") == 2);
    CHECK(here.said().find("partial_completion") != std::string::npos);
    CHECK(here.run("predict --model nothing --in a --out b") == 3);
    CHECK(here.run("train --resume nothing") == 3);
    CHECK(here.run("--help") == 0);
    CHECK(here.run("gain --help") == 0);
  }
}
