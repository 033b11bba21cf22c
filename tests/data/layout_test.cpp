// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <string>
#include <unistd.h>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/data/inspect.hpp>
#include <segmed/data/layout.hpp>
#include <segmed/data/loader.hpp>
#include <segmed/data/phantom.hpp>
#include <segmed/data/plan.hpp>

using namespace segmed;
namespace fs = std::filesystem;

namespace {
// A folder that goes away again.
struct Scratch {
  fs::path path = fs::temp_directory_path() / ("segmed_layout_" + std::to_string(::getpid()));
  Scratch() { fs::remove_all(path), fs::create_directories(path); }
  ~Scratch() { fs::remove_all(path); }
  std::string operator/(const std::string& name) const {
    const fs::path whole = path / name;
    fs::create_directories(whole.parent_path());
    return whole.string();
  }
};

Volume<float> scan(float seed, const Extent3& extent = {6, 5, 4}, Index channels = 1) {
  Volume<float> image = make_volume<float>(extent, Geometry::of_spacing(1, 1, 2), channels);
  for (std::size_t i = 0; i < image.voxels.size(); ++i) image.voxels[i] = seed + float(i % 23);
  return image;
}
Volume<std::uint8_t> labels(std::vector<std::uint8_t> values, const Extent3& extent = {6, 5, 4}) {
  Volume<std::uint8_t> map = make_volume<std::uint8_t>(extent, Geometry::of_spacing(1, 1, 2));
  std::copy(values.begin(), values.end(), map.voxels.begin());
  return map;
}
void write_text(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
std::map<std::string, CaseReport> by_id(const std::vector<CaseReport>& reports) {
  std::map<std::string, CaseReport> found;
  for (const CaseReport& report : reports) found[report.id] = report;
  return found;
}
bool says(const CaseReport& report, const std::string& text) {
  return std::any_of(report.reasons.begin(), report.reasons.end(), [&](const std::string& reason) {
    return reason.find(text) != std::string::npos;
  });
}
void make_decathlon(const Scratch& root, int cases) {
  for (int i = 0; i < cases; ++i) {
    const std::string name = "case_" + std::to_string(10 + i) + ".nii.gz";
    write_nifti(root / ("imagesTr/" + name), scan(float(i)));
    write_nifti(root / ("labelsTr/" + name), labels({0, 1, 2, 1, 2, 0}));
  }
}
}  // namespace

TEST_SUITE("data/layout") {
  TEST_CASE("TotalSegmentator: what was written comes back, with its split and its classes") {
    const Scratch root;
    phantom::AbdomenOptions options{.cases = 4,
                                    .organs = 5,
                                    .labelled = 1,
                                    .validation = 1,
                                    .extent = {24, 24, 24},
                                    .spacing_mm = 16};
    const MemoryCohort cohort = phantom::abdomen(options);
    write_totalsegmentator(cohort, root / "data/");
    const FolderCohort read = open_folder(root.path.string());  // one folder further down
    CHECK(read.layout == Layout::totalsegmentator_v2);
    REQUIRE(read.size() == 4);
    CHECK(read.info(3).part == Part::validation);
    CHECK(read.info(0).part == Part::full);
    const FolderCohort ordered =
        open_folder(root / "data",
                    {.classes = {"spleen", "kidney_right", "kidney_left", "gallbladder", "liver"}});
    for (Index i = 0; i < 4; ++i) {
      const Example mine = ordered.load(i), theirs = cohort.load(i);
      CHECK(ordered.info(i).patient == theirs.id);
      CHECK(mine.image.voxels == theirs.image.voxels);
      CHECK(mine.annotated == theirs.annotated);
      CHECK(mine.labels.voxels == theirs.labels.voxels);
      CHECK(same_grid(mine.image, theirs.image));
    }
    const FolderCohort two = open_folder(root / "data", {.classes = {"liver", "spleen"}});
    CHECK(two.classes.names == std::vector<std::string>{"background", "liver", "spleen"});
    const Example picked = two.load(0), whole = cohort.load(0);
    for (std::size_t v = 0; v < picked.labels.voxels.size(); ++v) {
      const std::uint8_t before = whole.labels.voxels[v];
      const int expected = before == phantom::liver ? 1 : before == phantom::spleen ? 2 : 0;
      if (picked.labels.voxels[v] != expected) FAIL("voxel ", v);
    }
    CHECK_THROWS_WITH_AS(open_folder(root / "data", {.classes = {"liver", "brain"}}),
                         doctest::Contains("has a mask of class brain among its 5 classes"),
                         ConfigError);
  }
  TEST_CASE("TotalSegmentator: a missing mask is not annotated, an empty one is absent") {
    const Scratch root;
    for (const char* id : {"s0001", "s0002", "s0003", "s0004"})
      write_nifti(root / (std::string(id) + "/ct.nii.gz"), scan(float(id[4])));
    const auto mask = [&](const std::string& id, const std::string& name, auto values) {
      write_nifti(root / (id + "/segmentations/" + name + ".nii.gz"), labels(values));
    };
    using Values = std::vector<std::uint8_t>;
    mask("s0001", "liver", Values{0, 1, 1});
    mask("s0001", "face", Values{});
    mask("s0002", "liver", Values{1, 0, 0});
    mask("s0004", "liver", Values{1, 2, 0});
    mask("s0004", "face", Values{0, 0, 1});
    mask("s0005", "liver", Values{1});
    write_text(root / "s0001/segmentations/._liver.nii.gz", "junk");
    write_text(
        root / "meta.csv",
        "\xEF\xBB\xBFimage_id;age;split\r\ns0001;40;train\r\ns0002;50;test\r\ns0003;1;val\r\n"
        "s0004;2;train\r\ns0005;3;train\r\ns0006;4;train\r\n");
    const FolderCohort cohort = open_folder(root.path.string());
    CHECK(cohort.layout == Layout::totalsegmentator_v1);
    CHECK(cohort.classes.names == std::vector<std::string>{"background", "face", "liver"});
    REQUIRE(cohort.size() == 6);
    CHECK(cohort.info(0).annotated == AnnotatedSet::all(3));
    CHECK(cohort.load(0).labels.voxels[1] == 2);
    CHECK(cohort.info(1).annotated == AnnotatedSet{}.with(2));
    CHECK(cohort.info(1).part == Part::test);
    const auto reports = by_id(inspect(cohort));
    CHECK(reports.at("s0001").verdict == Verdict::ok);
    CHECK(reports.at("s0003").verdict == Verdict::warn);
    CHECK(says(reports.at("s0003"), "an unlabelled case"));
    CHECK(reports.at("s0004").verdict == Verdict::quarantined);
    CHECK(says(reports.at("s0004"), "liver.nii.gz: holds the value 2 where a mask has 0 and 1"));
    CHECK(says(reports.at("s0005"), "has labels but no ct.nii.gz"));
    CHECK(says(reports.at("s0006"), "is in meta.csv but not on disk"));
  }
  TEST_CASE("Decathlon: names come from dataset.json, the command line, or the values") {
    const Scratch root;
    make_decathlon(root, 6);
    write_text(root / "imagesTr/._case_10.nii.gz", "junk");
    write_nifti(root / "imagesTs/case_90.nii.gz", scan(90));
    FolderCohort cohort = open_folder(root.path.string());
    CHECK(cohort.layout == Layout::decathlon);
    CHECK(cohort.classes.names == std::vector<std::string>{"background", "class_1", "class_2"});
    REQUIRE(cohort.size() == 7);
    CHECK(cohort.info(0).id == "case_10");
    CHECK(cohort.info(0).part == Part::full);
    CHECK(cohort.info(6).part == Part::test);
    CHECK_FALSE(cohort.info(6).has_labels);
    cohort = open_folder(root.path.string(), {.class_names = {"front", "back"}});
    CHECK(cohort.classes.names[2] == "back");
    write_text(
        root / "dataset.json",
        R"({"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
                   "training": [{"image": "./imagesTr/case_10.nii.gz", "label": "./labelsTr/case_10.nii.gz"},
                                {"image": "./imagesTr/case_77.nii.gz", "label": "./labelsTr/case_77.nii.gz"}]})");
    cohort = open_folder(root.path.string());
    CHECK(cohort.classes.names[1] == "Anterior");
    const auto reports = by_id(inspect(cohort));
    CHECK(says(reports.at("case_77"), "case_77.nii.gz: is listed in dataset.json but not on disk"));
    cohort = open_folder(root.path.string(), {.classes = {"Posterior"}});
    CHECK(cohort.load(0).labels.voxels[2] == 1);
    CHECK(cohort.load(0).labels.voxels[1] == 0);
    CHECK_THROWS_WITH_AS(open_folder(root.path.string(), {.classes = {"Middle"}}),
                         doctest::Contains("has no class Middle; it has Anterior, Posterior"),
                         ConfigError);
  }
  TEST_CASE("a value in a single map is no class of its own but an unexpected label") {
    const Scratch root;
    make_decathlon(root, 6);
    write_nifti(root / "labelsTr/case_13.nii.gz", labels({0, 1, 2, 57}));
    const FolderCohort cohort = open_folder(root.path.string());
    CHECK(cohort.classes.size() == 3);
    const auto reports = by_id(inspect(cohort));
    CHECK(reports.at("case_13").verdict == Verdict::quarantined);
    CHECK(says(reports.at("case_13"), "holds the label 57, which no class names (2 classes)"));
    CHECK(usable(cohort, inspect(cohort)).size() == 5);
  }
  TEST_CASE("nnU-Net: files are channels, labels map to numbers, one value may be ignored") {
    const Scratch root;
    for (const char* id : {"a", "b"}) {
      write_nifti(root / (std::string("imagesTr/") + id + "_0000.nii.gz"), scan(1));
      write_nifti(root / (std::string("imagesTr/") + id + "_0001.nii.gz"), scan(float(id[0])));
      write_nifti(root / (std::string("labelsTr/") + id + ".nii.gz"), labels({0, 3, 7, 9}));
    }
    write_text(root / "dataset.json",
               R"({"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz",
                   "labels": {"background": 0, "core": 7, "edema": 3, "ignore": 9}, "numTraining": 2})");
    const FolderCohort cohort = open_folder(root.path.string());
    CHECK(cohort.layout == Layout::nnunet);
    CHECK(cohort.classes.names == std::vector<std::string>{"background", "edema", "core"});
    const Example example = cohort.load(1);
    CHECK(example.id == "b");
    CHECK(example.image.channels == 2);
    CHECK(example.image.at(2, 0, 0, 0) == 3);
    CHECK(example.image.at(2, 0, 0, 1) == 'b' + 2);
    CHECK(std::vector<int>(example.labels.voxels.begin(), example.labels.voxels.begin() + 4) ==
          std::vector<int>{0, 1, 2, 255});
    write_text(root / "dataset.json", R"({"labels": {"background": 0, "whole": [1, 2]}})");
    CHECK_THROWS_WITH_AS(open_folder(root.path.string()),
                         doctest::Contains("label whole is a region of several values"), DataError);
  }
  TEST_CASE("plain folders and plain files pair up by name") {
    const Scratch root;
    write_nifti(root / "images/a.nii.gz", scan(1, {6, 5, 4}, 3));
    write_nifti(root / "images/b.nii", scan(2));
    write_nifti(root / "images/c.nii.gz", scan(3));
    write_nifti(root / "labels/a.nii.gz", labels({0, 1}));
    write_nifti(root / "labels/b_seg.nii.gz", labels({0, 1}));
    write_nifti(root / "labels/d.nii.gz", labels({0, 1}));
    write_text(root / "patients.csv", "id,patient\na,anna\nb,anna\n");
    const FolderCohort cohort = open_folder(root.path.string());
    CHECK(cohort.layout == Layout::pairs);
    REQUIRE(cohort.size() == 4);
    CHECK(cohort.load(0).image.channels == 3);
    CHECK(cohort.info(0).patient == "anna");
    CHECK(cohort.info(1).patient == "anna");
    CHECK(cohort.info(2).patient == "c");
    CHECK(cohort.load(1).labels.voxels[1] == 1);
    CHECK(cohort.info(2).part == Part::unlabelled);
    const auto reports = by_id(inspect(cohort));
    CHECK(reports.at("c").verdict == Verdict::warn);
    CHECK(reports.at("d").verdict == Verdict::quarantined);
    CHECK(says(reports.at("d"), "is a label map without a scan of the name d"));

    write_nifti(root / "flat/x.nii.gz", scan(1));
    write_nifti(root / "flat/x_mask.nii.gz", labels({1}));
    const FolderCohort flat = open_folder(root / "flat");
    REQUIRE(flat.size() == 1);
    CHECK(flat.info(0).has_labels);
  }
  TEST_CASE("a file may state what each case annotates") {
    const Scratch root;
    make_decathlon(root, 3);
    write_text(root / "annotated.txt", "case_10: front\ncase_11: none\n");
    FolderOptions options{.class_names = {"front", "back"},
                          .annotated_file = root / "annotated.txt"};
    const FolderCohort cohort = open_folder(root.path.string(), options);
    CHECK(cohort.info(0).part == Part::partial);
    CHECK(cohort.info(1).part == Part::unlabelled);
    CHECK(cohort.info(2).part == Part::full);
    const Example example = cohort.load(0);
    CHECK(example.annotated == AnnotatedSet{}.with(1));
    CHECK(std::count(example.labels.voxels.begin(), example.labels.voxels.end(), 2) == 0);
    CHECK(std::count(example.labels.voxels.begin(), example.labels.voxels.end(), 1) == 2);
    CHECK(cohort.load(1).labels.empty());
    write_text(root / "annotated.txt", "case_99: front\n");
    CHECK_THROWS_WITH_AS(open_folder(root.path.string(), options),
                         doctest::Contains("case case_99 is not in "), DataError);
  }
  TEST_CASE("id lists choose cases") {
    const Scratch root;
    make_decathlon(root, 4);
    const FolderCohort cohort = open_folder(root.path.string());
    write_text(root / "ids.txt", "# mine\ncase_12.nii.gz\n  case_10\r\n\n");
    const auto ids = read_ids(root / "ids.txt");
    CHECK(ids == std::vector<std::string>{"case_12", "case_10"});
    CHECK(chosen_cases(cohort, ids).info(0).id == "case_12");
    CHECK_THROWS_WITH_AS(chosen_cases(cohort, {"case_99"}),
                         doctest::Contains("case case_99 is not"), DataError);
    write_text(root / "none.txt", "# nothing\n");
    CHECK_THROWS_WITH_AS(read_ids(root / "none.txt"), doctest::Contains("names no case"),
                         DataError);
    CHECK_THROWS_AS(read_ids(root / "absent.txt"), FileError);
  }
  TEST_CASE("cases that cannot be used are quarantined with file, value and remedy") {
    const Scratch root;
    make_decathlon(root, 9);
    const auto image = [&](int i) {
      return root / ("imagesTr/case_1" + std::to_string(i) + ".nii.gz");
    };
    const auto label = [&](int i) {
      return root / ("labelsTr/case_1" + std::to_string(i) + ".nii.gz");
    };
    fs::resize_file(image(0), fs::file_size(image(0)) / 2);  // truncated
    {
      std::fstream file(image(1), std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(-6, std::ios::end);
      file.put('x');  // CRC
    }
    write_nifti(label(2), labels({0, 1}, {6, 5, 3}));  // another extent
    write_nifti(image(3), make_volume<float>({6, 5, 4}, Geometry::of_spacing(1, 1, 2), 1, 7.0f));
    write_nifti(image(4), make_volume<float>({6, 5, 4}, Geometry::of_spacing(1, 1, 2), 1,
                                             std::numeric_limits<float>::quiet_NaN()));
    Volume<std::uint8_t> moved = labels({0, 1});
    moved.geometry.affine(0, 3) = 30;
    write_nifti(label(5), moved);
    write_nifti(image(6), scan(7));  // twins
    write_nifti(image(7), scan(7));
    Volume<float> holes = scan(8);
    holes.voxels[5] = std::numeric_limits<float>::quiet_NaN();
    write_nifti(image(8), holes);
    const FolderCohort cohort = open_folder(root.path.string(), {.class_names = {"front", "back"}});
    const auto list = inspect(cohort);
    const auto reports = by_id(list);
    const char* expected[] = {"case_10.nii.gz: is truncated",
                              "case_11.nii.gz: its gzip CRC is wrong",
                              "case_12.nii.gz: extent 6x5x3 where its scan has 6x5x4; resample it",
                              "case_13.nii.gz: every voxel of channel 0 is 7: the scan is empty",
                              "case_14.nii.gz: no voxel of channel 0 is finite",
                              "case_15.nii.gz: affine puts a corner 30 mm from its scan's corner"};
    for (int i = 0; i < 6; ++i) {
      const CaseReport& report = reports.at("case_1" + std::to_string(i));
      INFO(report.id, ": ", report.reasons.empty() ? "" : report.reasons.front());
      CHECK(report.verdict == Verdict::quarantined);
      CHECK(says(report, expected[i]));
    }
    CHECK(reports.at("case_16").verdict == Verdict::warn);
    CHECK(says(reports.at("case_16"), "has the same voxels as case case_17"));
    CHECK(reports.at("case_18").verdict == Verdict::warn);
    CHECK(says(reports.at("case_18"), "NaN"));
    CHECK(usable(cohort, list).size() == 3);
    const Json json = to_json(list, cohort.layout);
    CHECK(json.at("layout").as_string() == "decathlon");
    CHECK(json.at("cases").as_array()[0].at("verdict").as_string() == "quarantined");

    // A loader that meets them goes on with the others.
    std::vector<LoaderCase> cases;
    for (Index i = 0; i < cohort.size(); ++i) cases.push_back({i});
    LoaderOptions options;
    options.sample.patch = {4, 4, 4};
    Loader loader(make_store(cohort, {}), cohort.classes, cases, options);
    for (Index step = 0; step < 9; ++step) CHECK(loader.batch(step).size() == 2);
    CHECK(loader.faults().size() == 6);
  }
  TEST_CASE("labels along other axes are turned onto their scan, with a word") {
    const Scratch root;
    const Volume<float> image = scan(1);
    Volume<std::uint8_t> map = labels({0, 1, 2});
    write_nifti(root / "images/a.nii.gz", image);
    write_nifti(root / "labels/a.nii.gz", reorient(map, "LPS"));
    const FolderCohort cohort = open_folder(root.path.string());
    std::vector<std::string> warnings;
    CHECK(cohort.load(0, &warnings).labels.voxels == map.voxels);
    REQUIRE(warnings.size() == 1);
    CHECK(warnings[0].find("runs along LPS, its scan along RAS; it was turned") !=
          std::string::npos);
  }
  TEST_CASE("folders without scans are refused") {
    const Scratch root;
    CHECK_THROWS_WITH_AS(open_folder(root / "absent"), doctest::Contains("is no folder"),
                         FileError);
    fs::create_directories(root.path / "empty");
    CHECK_THROWS_WITH_AS(open_folder(root / "empty"), doctest::Contains("holds no scan"),
                         FileError);
  }
  TEST_CASE("the hippocampus data set is what its manifest says") {
    const char* data = std::getenv("SEGMED_DATA");
    const fs::path folder = data ? fs::path(data) / "hippocampus_msd" : fs::path();
    if (!data || !fs::exists(folder)) {
      MESSAGE("skipped: SEGMED_DATA has no hippocampus_msd");
      return;
    }
    const FolderCohort cohort = open_folder(folder.string());
    CHECK(cohort.layout == Layout::decathlon);
    CHECK(cohort.size() == 191);
    CHECK(cohort.classes.names == std::vector<std::string>{"background", "class_1", "class_2"});
    const auto reports = inspect(cohort);
    Index good = 0;
    for (const CaseReport& report : reports) good += report.verdict == Verdict::ok ? 1 : 0;
    CHECK(good == 191);
    const TextTable table = read_table((folder / "index.csv").string(), ',');
    std::map<std::string, std::vector<std::string>> rows;
    for (const auto& row : table) rows[stem_of(row[0])] = row;
    Survey survey;
    for (Index i = 0; i < cohort.size(); i += 5) {
      const Example example = cohort.load(i);
      const auto& row = rows.at(example.id);
      CHECK(std::to_string(example.image.extent[0]) == row[1]);
      CHECK(std::to_string(example.image.extent[1]) == row[2]);
      CHECK(std::to_string(example.image.extent[2]) == row[3]);
      const auto count = [&](int c) {
        return std::to_string(
            std::count(example.labels.voxels.begin(), example.labels.voxels.end(), c));
      };
      CHECK(count(1) == row[7]);
      CHECK(count(2) == row[8]);
      survey.add(example);
    }
    const Plan plan = survey.plan();
    CHECK(plan.preparation.normalization.kind == Normalization::Kind::z_score);
    CHECK(plan.preparation.spacing_mm == std::array<double, 3>{1, 1, 1});
    const auto infos = infos_of(cohort);
    const Split split = draw_split(infos, 3, draw_validation(infos, 3, 40, 1), 10, 60, 1);
    CHECK_NOTHROW(check_split(split, infos));
  }
  TEST_CASE("real one-file-per-organ masks make a TotalSegmentator case") {
    const char* data = std::getenv("SEGMED_DATA");
    const fs::path small = data ? fs::path(data) / "ct_totalseg/small_3mm" : fs::path();
    if (!data || !fs::exists(small)) {
      MESSAGE("skipped: SEGMED_DATA has no ct_totalseg");
      return;
    }
    const Scratch root;  // links only: the data stay where they are
    fs::create_directories(root.path / "s0001");
    fs::create_symlink(small / "ct.nii.gz", root.path / "s0001/ct.nii.gz");
    fs::create_directory_symlink(small / "seg_fast_one_file_per_organ",
                                 root.path / "s0001/segmentations");
    const FolderCohort cohort = open_folder(root.path.string());
    CHECK(cohort.layout == Layout::totalsegmentator_v2);
    CHECK(cohort.classes.size() == 13);
    std::vector<std::string> warnings;
    const Example example = cohort.load(0, &warnings);
    CHECK(example.annotated == cohort.classes.all());
    CHECK(example.image.extent == Extent3{122, 101, 30});
    const auto count = [&](const char* name) {
      const auto c = cohort.classes.find(name);
      return std::count(example.labels.voxels.begin(), example.labels.voxels.end(), c);
    };
    CHECK(count("prostate") == 0);  // looked for and absent
    CHECK(count("liver") > 1000);
    CHECK(cohort.classes.mirror[std::size_t(cohort.classes.find("kidney_left"))] ==
          cohort.classes.find("kidney_right"));
  }
}
