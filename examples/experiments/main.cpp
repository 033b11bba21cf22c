// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <new>

#include <CLI/CLI.hpp>

#include "commands.hpp"
#include "device.hpp"
#include <segmed/backend/parallel.hpp>

namespace experiments {

std::atomic<bool> stop_requested = false;

namespace {

using namespace segmed;

/// Whether `together` was called: what it runs comes here again.
std::atomic<bool> in_company = false;

void on_signal(int) {
  if (stop_requested.exchange(true)) std::_Exit(interrupted);  // the second time at once
}

/// "32,48,32" as extents.
template <class Array>
void add_triple(CLI::App& app, const char* name, Array& into, const char* help) {
  app.add_option_function<std::vector<double>>(
         name,
         [&into](const std::vector<double>& values) {
           for (std::size_t k = 0; k < 3; ++k)
             into[k] = static_cast<typename Array::value_type>(values[k]);
         },
         help)
      ->delimiter(',')
      ->expected(3)
      ->check(CLI::PositiveNumber);
}
void add_folder(CLI::App& app, FolderOptions& options) {
  app.add_option("--classes", options.classes, "use only these classes, in this order")
      ->delimiter(',');
  app.add_option("--class-names", options.class_names,
                 "names of the label values 1, 2, ... where no file has them")
      ->delimiter(',');
  app.add_option("--annotated", options.annotated_file,
                 "a file that states which classes each case annotates: lines \"id: class class\"");
}
void add_study(CLI::App& app, StudyOptions& options) {
  app.add_option("--data", options.data, "a data set's folder, of any layout");
  add_folder(app, options.folder);
  app.add_option("--d0", options.d0, "D_0, fully annotated: a count, a file of ids, or a folder");
  app.add_option("--d1", options.d1,
                 "D_1, partly annotated: a count or several (0,20,60), a file of ids, or a folder");
  app.add_option("--val", options.val, "D_val: a count, a file of ids, or a folder");
  app.add_option("--hide", options.hide,
                 std::string("what is hidden of D_1's labels, one or several: ") + Hide::forms)
      ->delimiter(',')
      ->capture_default_str();
  add_triple(app, "--spacing", options.plan.spacing_mm, "voxels of X,Y,Z mm; else the median");
  add_triple(app, "--patch", options.plan.patch, "patches of X,Y,Z voxels; Z = 1 for 2-D");
  app.add_option("--batch", options.plan.batch, "patches of D_0 in a step");
  app.add_option("--widths", options.plan.widths, "channels of the network's levels")
      ->delimiter(',');
  app.add_option("--normalization", options.normalization,
                 "z_score, percentile, window:LOW:HIGH or none");
  app.add_option("--network", options.network, "the network")
      ->check(CLI::IsMember(network_names()));
  app.add_option("--loss", options.loss, "the loss of labels")
      ->check(CLI::IsMember({"dice_ce", "dice", "cross_entropy"}));
  app.add_option("--optimizer", options.optimizer, "the optimizer")
      ->check(CLI::IsMember({"adamw", "sgd"}));
  app.add_option("--rate", options.rate, "the learning rate at its highest")
      ->check(CLI::PositiveNumber);
  app.add_option("--average", options.average,
                 "predict with averaged weights of which a step keeps so much; 0: with the last")
      ->check(CLI::Range(0.0, 0.9999));
  app.add_option("--flip", options.flip, "mirror training patches along these axes: x, y, z, xy...")
      ->check([](const std::string& axes) {
        return axes.find_first_not_of("xyz") == std::string::npos ? std::string()
                                                                  : "give some of x, y and z";
      });
  app.add_option("--elastic", options.elastic,
                 "chance that a training patch is deformed: smoothly, by up to 8 mm")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--blur", options.blur,
                 "chance that a channel of a training patch is blurred, by half a voxel to one")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--low-resolution", options.low_resolution,
                 "chance that a channel of a training patch loses up to half of its resolution")
      ->check(CLI::Range(0.0, 1.0));
  app.add_flag("--balance-sources", options.balance_sources,
               "draw cases of D_1 by 1 / sqrt(those that annotate the same classes)");
  app.add_flag("--deep-supervision", options.deep_supervision, "a loss at every resolution");
  app.add_flag("--recompute", options.recompute,
               "run every stage of the network again in backward: less memory, more time");
  app.add_flag("--strict", options.strict, "stop at the first broken case");
  app.add_flag("--quiet", options.quiet, "no progress");
  app.add_option("--seed", options.seed, "of everything that is drawn")->capture_default_str();
}
void add_budget(CLI::App& app, BudgetOptions& options) {
  auto* steps = app.add_option("--steps", options.steps, "budget of a run in steps");
  app.add_option("--minutes", options.minutes, "budget of a run in minutes of training")
      ->excludes(steps);
  app.add_option("--out", options.out, "folder for models, predictions and results");
  app.add_option("--tuning", options.tuning,
                 "on a GPU: compute convolutions as this file of experiments tune says");
  app.add_flag("--replay", options.replay,
               "on a GPU: queue a training step's kernels as one, where the policy allows it");
  app.add_flag("--augment-on-host", options.augment_on_host,
               "on a GPU: let the processor vary training patches");
}
void need(bool given, const char* command, const char* option) {
  require<ConfigError>(given, command, "needs ", option, "; see experiments ", command, " --help");
}

/// The comparisons that have a name; what the command line says beats them.
void preset(CLI::App& app, const std::string& name) {
  std::vector<std::pair<const char*, std::string>> words;
  if (name == "seed0") {
    words = {{"--classes",
              "spleen,kidney_right,kidney_left,gallbladder,liver,stomach,aorta,"
              "inferior_vena_cava,pancreas,urinary_bladder"},
             {"--d0", "100"},
             {"--d1", "25,50,100"},
             {"--val", "50"},
             {"--hide", "classes:5"},
             {"--spacing", "3,3,3"},
             {"--policies", "supervised,partial_completion"},
             {"--seeds", "3"},
             {"--minutes", "60"}};
  } else {
    const char* data = std::getenv("SEGMED_DATA");
    words = {{"--d0", "5"},       {"--d1", "100"},
             {"--val", "40"},     {"--hide", "everything"},
             {"--seeds", "3"},    {"--policies", "supervised,mean_teacher"},
             {"--steps", "1500"}, {"--data", data ? std::string(data) + "/hippocampus_msd" : ""}};
  }
  const bool budget = app.count("--steps") + app.count("--minutes") > 0;
  for (const auto& [option, value] : words) {
    const bool of_budget = std::string(option) == "--steps" || std::string(option) == "--minutes";
    if (app.count(option) > 0 || value.empty() || (of_budget && budget)) continue;
    app.get_option(option)->add_result(value);
    app.get_option(option)->run_callback();
  }
}

/// The options of a run that is continued: the command line that its folder keeps.
std::vector<std::string> words_of(const std::string& folder) {
  const std::string path = folder + "/settings.json";
  require<FileError>(std::filesystem::exists(path), "--resume", path,
                     ": is not there; this folder holds no run");
  std::vector<std::string> words;
  const Json arguments =
      parse_json(parse_json(read_bytes(path), path).at("arguments").as_string(), path);
  for (const Json& word : arguments.as_array()) words.push_back(word.as_string());
  return words;
}

int run(int argc, const char* const* argv) {
  CLI::App app("segmed: semi-supervised and partially labelled segmentation of medical images");
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  int thread_count = 0;
  app.add_option("--threads", thread_count, "threads; else all")->check(CLI::Range(1, 1024));
  std::string device = "auto";
  app.add_option(
         "--device", device,
         "auto, cpu, cuda or cuda:N; cuda is the first GPU, or that of the process among those "
         "of its machine; auto is cuda where there is one, else cpu")
      ->capture_default_str();
  bool tf32 = false, nondeterministic = false;
  app.add_flag(
      "--tf32", tf32,
      "on a GPU: convolutions of float maps may multiply with 10 bits of fraction; maps of "
      "bfloat16 have no such choice");
  app.add_flag("--allow-nondeterministic", nondeterministic,
               "on a GPU: convolutions may add in an order that differs from run to run");
  bool distributed = false;
  app.add_flag(
      "--distributed", distributed,
      "train, gain and predict: work together with the other processes that mpirun started");
  double patience = 300;
  app.add_option("--patience", patience,
                 "seconds that a training process waits for another before all end; 0: for ever")
      ->check(CLI::NonNegativeNumber);
  app.fallthrough();

  PhantomOptions phantom_options;
  auto* phantom_app = app.add_subcommand("phantom", "generate abdominal CT scans with organ masks");
  phantom_app->footer("experiments phantom --cases 24 --out data/abdomen --seed 1");
  phantom_app->add_option("--cases", phantom_options.cases, "scans")->capture_default_str();
  phantom_app->add_option("--organs", phantom_options.organs, "1 to 10")->capture_default_str();
  add_triple(*phantom_app, "--extent", phantom_options.extent, "voxels X,Y,Z; 96,96,96");
  phantom_app->add_option("--spacing", phantom_options.spacing_mm, "mm")->capture_default_str();
  phantom_app->add_option("--seed", phantom_options.seed, "of the cohort")->capture_default_str();
  phantom_app->add_option("--out", phantom_options.out, "an empty folder")->required();

  InspectOptions inspect_options;
  auto* inspect_app = app.add_subcommand("inspect", "judge every case of a data set");
  inspect_app->footer("experiments inspect --data DIR --json");
  inspect_app->add_option("--data", inspect_options.data, "its folder")->required();
  add_folder(*inspect_app, inspect_options.folder);
  inspect_app->add_flag("--json", inspect_options.json, "for programs");

  ConvertCommand convert_options;
  auto* convert_app = app.add_subcommand("convert", "change a NIfTI file's container or grid");
  convert_app->footer(
      "experiments convert IN.nii OUT.nii.gz --orient RAS --spacing 1,1,1 --interpolation linear");
  convert_app->add_option("in", convert_options.in, "what to read")->required();
  convert_app->add_option("out", convert_options.out, "what to write")->required();
  convert_app->add_option("--orient", convert_options.orient, "axes, such as RAS or LPS");
  convert_app->add_option("--spacing", convert_options.spacing, "mm")->delimiter(',')->expected(3);
  convert_app->add_option("--interpolation", convert_options.interpolation, "for --spacing")
      ->check(CLI::IsMember({"linear", "nearest"}));

  TrainOptions train_options;
  auto* train_app = app.add_subcommand("train", "train one model");
  train_app->footer(
      "experiments train --data $SEGMED_DATA/hippocampus_msd --val 40 --policy supervised "
      "--minutes 10 --out runs/full\nexperiments train --resume runs/full");
  add_study(*train_app, train_options.study);
  add_budget(*train_app, train_options.budget);
  train_app
      ->add_option("--policy", train_options.policy,
                   "how D_1 is used; several at once as in marginal+rdrop:weight=2")
      ->capture_default_str();
  train_app->add_option("--resume", train_options.resume, "go on with the run in this folder");

  TuneOptions tune_options;
  auto* tune_app = app.add_subcommand(
      "tune", "on a GPU: time cuDNN's engines for the convolutions of a training");
  tune_app->footer(
      "experiments tune --data DIR --patch 128,128,128 --out tuning.json\n"
      "experiments train --data DIR --patch 128,128,128 --tuning tuning.json ...");
  add_study(*tune_app, tune_options.study);
  tune_app->add_option("--policy", tune_options.policy, "whose networks")->capture_default_str();
  tune_app->add_option("--steps", tune_options.budget.steps, "of the training to come");
  tune_app->add_option("--minutes", tune_options.budget.minutes, "of the training to come");
  tune_app->add_option("--engines", tune_options.engines, "at most so many for each convolution")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  tune_app->add_option("--out", tune_options.budget.out, "the table, a file")->required();

  GainOptions gain_options;
  auto* gain_app = app.add_subcommand("gain", "compare M_1 (D_0 and D_1) with M_0 (D_0 alone)");
  gain_app->footer(
      "experiments gain --data $SEGMED_DATA/hippocampus_msd --d0 10 --d1 60 --val 40 "
      "--hide classes:1 --policies supervised,partial_completion --seeds 3 --minutes 2 "
      "--out runs/hippocampus\n"
      "experiments gain --preset seed0 --data DIR --out runs/seed0   (100 + 100 CT scans)");
  add_study(*gain_app, gain_options.study);
  add_budget(*gain_app, gain_options.budget);
  gain_app
      ->add_option("--policies", gain_options.policies,
                   "supervised, and those to compare it with; set an option as in rdrop:weight=2, "
                   "compose them as in marginal+rdrop:weight=2")
      ->delimiter(',');
  gain_app
      ->add_option("--against", gain_options.against,
                   "of these, those that every other policy is compared with, as with M_0")
      ->delimiter(',');
  gain_app->add_option("--seeds", gain_options.seeds, "how many")->capture_default_str();
  gain_app
      ->add_option("--first-seed", gain_options.first_seed,
                   "the first of them; else --seed, which draws D_val too")
      ->check(CLI::NonNegativeNumber);
  gain_app
      ->add_option("--inner", gain_options.study.inner,
                   "to tune: D_val is put aside, and so many cases of D_0 evaluate instead")
      ->check(CLI::PositiveNumber);
  gain_app->add_option("--equal", gain_options.equal,
                       "give M_0 and M_1 equal steps or minutes; else as the budget is given");
  gain_app->add_flag("--warm-start", gain_options.warm_start,
                     "M_1 starts from the weights of the M_0 of its seed");
  std::string preset_name;
  gain_app
      ->add_option("--preset", preset_name,
                   "fills the options that are not given: seed0, hippocampus")
      ->check(CLI::IsMember({"seed0", "hippocampus"}));
  bool list_policies = false;
  gain_app->add_flag("--list-policies", list_policies, "print the policies and what they do");

  PredictOptions predict_options;
  auto* predict_app = app.add_subcommand("predict", "label scans with a trained model");
  predict_app->footer(
      "experiments predict --model runs/full/last.safetensors --in FILE_OR_FOLDER --out FOLDER");
  predict_app->add_option("--model", predict_options.model, "a checkpoint or a run's folder")
      ->required();
  predict_app->add_option("--in", predict_options.in, "a scan or a folder of scans")->required();
  predict_app->add_option("--out", predict_options.out, "a folder")->required();
  predict_app->add_flag("--mirror", predict_options.mirror,
                        "average over views mirrored along the axes of --flip");
  predict_app->add_flag("--quiet", predict_options.quiet, "no progress");

  EvaluateOptions evaluate_options;
  auto* evaluate_app = app.add_subcommand("evaluate", "score predictions against truths");
  evaluate_app->footer("experiments evaluate --pred FOLDER --truth FOLDER --json");
  evaluate_app->add_option("--pred", evaluate_options.prediction, "label maps")->required();
  evaluate_app->add_option("--truth", evaluate_options.truth, "label maps of the same names")
      ->required();
  evaluate_app->add_option("--class-names", evaluate_options.class_names, "of the values 1, 2, ...")
      ->delimiter(',');
  evaluate_app->add_flag("--json", evaluate_options.json, "for programs");

  ReportOptions report_options;
  auto* report_app =
      app.add_subcommand("report", "compare the runs of a folder, and draw its report.html, anew");
  report_app->footer("experiments report runs/hippocampus --against marginal");
  report_app->add_option("folder", report_options.folder, "a comparison's")->required();
  report_app
      ->add_option("--against", report_options.against,
                   "policies that every other one is compared with, as with M_0")
      ->delimiter(',');

  try {
    app.parse(argc, argv);
    if (!preset_name.empty()) preset(*gain_app, preset_name);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? done : usage;
  }
  if (thread_count > 0) set_threads(thread_count);
  const char* started = std::getenv("OMPI_COMM_WORLD_SIZE");
  require<ConfigError>(distributed || !started || std::string(started) == "1", "--distributed",
                       started ? started : "", " processes were started, which would all do the ",
                       "same; give --distributed, so that they work together");
  if (distributed && ranks().alone() && !in_company.exchange(true))
    return together(*train_app ? patience : 0, [&] { return run(argc, argv); });
  choose_device(device, local_rank());
  const bool silent = !ranks().first();  // the first rank speaks
  for (const std::string& line : units().allow(tf32, nondeterministic))
    if (!silent) std::fprintf(stderr, "%s\n", line.c_str());
  train_options.study.quiet |= silent, gain_options.study.quiet |= silent;
  predict_options.quiet |= silent;

  // What is kept of the command, for --resume and the manifest.
  std::string line = "experiments";
  Json words = Json::Array{};
  for (int i = 1; i < argc; ++i) {
    line += std::string(" ") + argv[i];
    words.push_back(std::string(argv[i]));
  }
  if (*phantom_app) return phantom(phantom_options);
  if (*inspect_app) return inspect(inspect_options);
  if (*convert_app) return convert(convert_options);
  if (*predict_app) return predict(predict_options);
  if (*evaluate_app) return evaluate(evaluate_options);
  if (*report_app) return report(report_options);
  if (*tune_app) {
    need(!tune_options.study.data.empty(), "tune", "--data");
    return tune(tune_options);
  }
  if (*train_app) {
    if (!train_options.resume.empty()) {
      const auto kept = words_of(train_options.resume);
      std::vector<const char*> again = {argv[0]};
      for (const auto& word : kept) again.push_back(word.c_str());
      return run(int(again.size()), again.data());
    }
    need(!train_options.study.data.empty(), "train", "--data");
    need(!train_options.budget.out.empty(), "train", "--out");
    need(train_options.budget.steps > 0 || train_options.budget.minutes > 0, "train",
         "--steps or --minutes");
    train_options.command_line = words.dump();
    return adding_on_device([&] { return train(train_options); });
  }
  if (list_policies) {
    for (const PolicyEntry* entry : policies())
      std::printf("%-20s %s\n", entry->name, entry->sentence);
    std::printf("\n%s", about_composing().c_str());
    return done;
  }
  need(!gain_options.study.data.empty(), "gain", "--data");
  need(!gain_options.budget.out.empty(), "gain", "--out");
  need(gain_options.budget.steps > 0 || gain_options.budget.minutes > 0, "gain",
       "--steps or --minutes");
  gain_options.command_line = line;
  return gain(gain_options);
}

}  // namespace
}  // namespace experiments

int main(int argc, char** argv) {
  using namespace experiments;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // a log shows each line when it is printed
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  int code = failed;
  std::string text;
  try {
    return run(argc, argv);
  } catch (const segmed::ConfigError& error) {
    text = error.what(), code = usage;
  } catch (const segmed::DataError& error) {
    text = error.what(), code = bad_input;
  } catch (const segmed::DiskError& error) {
    text = error.what(), code = disk;
  } catch (const segmed::FileError& error) {
    text = error.what(), code = bad_input;
  } catch (const segmed::MemoryError& error) {
    text = error.what(), code = out_of_memory;
  } catch (const std::bad_alloc&) {
    text = "segmed: memory: there is not enough; take a smaller --patch or --batch";
    code = out_of_memory;
  } catch (const std::exception& error) {
    text = error.what();
  }
  end_with(text, code);
  return code;
}
