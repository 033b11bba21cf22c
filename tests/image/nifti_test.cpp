// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "gz.hpp"
#include <segmed/image/nifti.hpp>
#include <segmed/image/orient.hpp>

using namespace segmed;
using namespace segmed_test;

namespace {

Geometry sheared() {
  Geometry made;
  made.affine << -0.75, 0.25, -0.125, -20, -0.25, 1.125, 0.5, 13, 0.125, -0.25, 2.5, 7, 0, 0, 0, 1;
  return made;
}

// Values over the whole range of the type.
template <class T>
Volume<T> spread(Extent3 extent, Index channels, const Geometry& geometry = sheared()) {
  auto volume = make_volume<T>(extent, geometry, channels);
  std::uint64_t state = 3;
  for (T& value : volume.voxels) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    if constexpr (std::is_integral_v<T>)
      value = static_cast<T>(state >> 20);
    else
      value = static_cast<T>(double(std::int64_t(state)) * 1e-7);
  }
  volume.voxels.front() = std::numeric_limits<T>::lowest();
  volume.voxels.back() = std::numeric_limits<T>::max();
  return volume;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Affine (16), extents and volumes (4), then all values, x fastest: nibabel's view of a file.
const char* const dump =
    "import sys, numpy as np, nibabel as nib\n"
    "for k, f in enumerate(sys.argv[2:]):\n"
    "  i = nib.load(f)\n"
    "  d = np.asanyarray(i.dataobj).astype(np.float64)\n"
    "  s = list(d.shape) + [1] * (3 - d.ndim)\n"
    "  n = [float(x) for x in s[:3]] + [float(np.prod(s[3:]))]\n"
    "  np.concatenate([np.array(i.affine, float).ravel(), n, d.ravel(order='F')])"
    ".tofile(sys.argv[1] + '/%d.f64' % k)\n";

void compare(const Volume<double>& mine, const std::vector<double>& theirs, double tolerance) {
  REQUIRE(theirs.size() == mine.voxels.size() + 20);
  double worst = 0;
  for (int r = 0; r < 4; ++r)
    for (int c = 0; c < 4; ++c)
      worst =
          std::max(worst, std::abs(mine.geometry.affine(r, c) - theirs[std::size_t(4 * r + c)]));
  CHECK(worst < tolerance);
  for (std::size_t k = 0; k < 3; ++k) CHECK(double(mine.extent[k]) == theirs[16 + k]);
  CHECK(double(mine.channels) == theirs[19]);
  const Index grid = mine.grid_size();
  Index different = 0;
  for (Index c = 0; c < mine.channels; ++c)
    for (Index k = 0; k < grid; ++k) {
      const double a = mine.voxels[std::size_t(k * mine.channels + c)];
      const double b = theirs[std::size_t(20 + c * grid + k)];
      // nibabel scales in the precision of its choice.
      different +=
          !(a == b || (std::isnan(a) && std::isnan(b)) || std::abs(a - b) <= 1e-6 * std::abs(b));
    }
  CHECK(different == 0);
}

void compare_files(const Folder& folder, const std::vector<std::string>& files,
                   double tolerance = 1e-5) {
  std::string arguments = folder.path;
  for (const std::string& file : files) arguments += " " + file;
  REQUIRE(python(folder, dump, arguments));
  for (std::size_t k = 0; k < files.size(); ++k) {
    INFO(files[k]);
    compare(read_nifti<double>(files[k]), get_doubles(folder / (std::to_string(k) + ".f64")),
            tolerance);
    std::remove((folder / (std::to_string(k) + ".f64")).c_str());
  }
}

}  // namespace

TEST_SUITE("image/nifti") {
  TEST_CASE_TEMPLATE("voxels, channels and affine come back in every container", T, std::int8_t,
                     std::uint8_t, std::int16_t, std::uint16_t, std::int32_t, std::uint32_t,
                     std::int64_t, std::uint64_t, float, double) {
    const Folder folder;
    for (const Index channels : {1, 3}) {
      const auto volume = spread<T>({5, 4, 3}, channels);
      for (const int version : {1, 2})
        for (const bool big_endian : {false, true})
          for (const char* name : {"a.nii", "a.nii.gz", "b.hdr", "c.img", "d.img.gz", "E.NII.GZ"}) {
            NiftiWriteOptions options;
            options.version = version, options.big_endian = big_endian;
            write_nifti(folder / name, volume, options);
            std::vector<std::string> warnings;
            const auto back = read_nifti<T>(folder / name, {}, &warnings);
            CHECK(back.extent == volume.extent);
            CHECK(back.channels == channels);
            CHECK(same_bits(back.voxels, volume.voxels));
            CHECK(back.geometry.same_grid(volume.geometry, 0));
            // Only a sform can hold shear.
            REQUIRE(warnings.size() == 1);
            CHECK(warnings[0].find("the sform is believed") != std::string::npos);
            const auto header = read_nifti_header(folder / name);
            CHECK(header.version == version);
            CHECK(header.swapped == big_endian);
            CHECK(header.qform_code == 1);
            CHECK(header.sform_code == 1);
          }
    }
  }
  TEST_CASE("qform and sform agree for every turn of the axes") {
    const Folder folder;
    auto volume = make_volume<short>({4, 5, 6}, Geometry::of_spacing(1, 2, 3).shifted(7, 8, 9));
    for (const char* code : {"RAS", "LPS", "SAR", "PIR", "ILA", "ASL", "LAI"}) {
      std::vector<std::string> warnings;
      write_nifti(folder / "a.nii", reorient(volume, code));
      const auto back = read_nifti<short>(folder / "a.nii", {}, &warnings);
      CHECK(back.geometry.orientation() == code);
      CHECK(warnings.empty());
      const auto header = read_nifti_header(folder / "a.nii");
      CHECK(header.qform.same_grid(header.sform, 1e-5));
    }
  }
  TEST_CASE("long axes and odd numbers of channels make a NIfTI-2 file") {
    const Folder folder;
    const auto line = spread<std::uint8_t>({40000, 1, 1}, 1, Geometry{});
    write_nifti(folder / "a.nii", line);
    CHECK(read_nifti_header(folder / "a.nii").version == 2);
    CHECK(read_nifti<std::uint8_t>(folder / "a.nii").voxels == line.voxels);
    NiftiWriteOptions one;
    one.version = 1;
    CHECK_THROWS_WITH_AS(
        write_nifti(folder / "b.nii", line, one),
        ("segmed: nifti: " + (folder / "b.nii") + ": version 1 does not hold an extent of 40000")
            .c_str(),
        ConfigError);
  }
  TEST_CASE("scl_slope and scl_inter are applied") {
    const Folder folder;
    RawHeader header;
    header.slope = 0.5f, header.inter = -10;
    put_file(folder / "a.nii", header.bytes() + ramp_voxels());
    CHECK(read_nifti<float>(folder / "a.nii").at(3, 0, 0) == -8.5f);
    CHECK_THROWS_WITH_AS(read_labels(folder / "a.nii"),
                         ("segmed: nifti: " + (folder / "a.nii") +
                          ": voxel 0,0,0 holds -10, not a whole number from 0 to 255")
                             .c_str(),
                         DataError);
    header.slope = 2, header.inter = 1;
    put_file(folder / "a.nii", header.bytes() + ramp_voxels());
    CHECK(read_labels(folder / "a.nii").at(3, 3, 3) == 127);
  }
  TEST_CASE("NaN and infinity are kept, refused or replaced as asked, and counted") {
    const Folder folder;
    auto volume = spread<float>({3, 3, 3}, 1);
    volume.at(1, 1, 1) = std::nanf("");
    volume.at(2, 2, 1) = -std::numeric_limits<float>::infinity();
    write_nifti(folder / "a.nii", volume);
    NiftiOptions options;
    std::vector<std::string> warnings;
    const auto kept = read_nifti<float>(folder / "a.nii", options, &warnings);
    CHECK(same_bits(kept.voxels, volume.voxels));
    CHECK(warnings.back() == "2 voxels are NaN or infinite");
    options.non_finite = NonFinite::replace_by_zero;
    CHECK(read_nifti<float>(folder / "a.nii", options, &warnings).at(1, 1, 1) == 0);
    CHECK(warnings.back() == "2 voxels are NaN or infinite, replaced by 0");
    options.non_finite = NonFinite::refuse;
    CHECK_THROWS_WITH_AS(
        read_nifti<float>(folder / "a.nii", options),
        ("segmed: nifti: " + (folder / "a.nii") + ": voxel 1,1,1 holds nan").c_str(), DataError);
    CHECK_THROWS_AS(read_labels(folder / "a.nii"), DataError);
  }
  TEST_CASE("a value that the type cannot hold is never changed without a word") {
    const Folder folder;
    const std::string path = folder / "a.nii";
    const auto told = [&](const std::string& text) { return "segmed: nifti: " + path + text; };
    auto reals = make_volume<double>({2, 2, 2}, {}, 1, 1.0);
    reals.at(1, 0, 1) = 3.5;
    write_nifti(path, reals);
    CHECK_THROWS_WITH_AS(read_labels(path),
                         told(": voxel 1,0,1 holds 3.5, not a whole number from 0 to 255").c_str(),
                         DataError);
    reals.at(1, 0, 1) = 1e300;
    write_nifti(path, reals);
    CHECK_THROWS_WITH_AS(read_nifti<float>(path),
                         told(": voxel 1,0,1 holds 1e+300, too large for float").c_str(),
                         DataError);
    auto integers = make_volume<std::int32_t>({2, 2, 2}, {}, 1, 16777217);
    write_nifti(path, integers);
    std::vector<std::string> warnings;
    read_nifti<double>(path, {}, &warnings);
    CHECK(warnings.empty());
    read_nifti<float>(path, {}, &warnings);
    CHECK(warnings == std::vector<std::string>{
                          "8 voxels of INT32 have more digits than the type they are read into"});
    CHECK_THROWS_WITH_AS(
        read_nifti<std::int16_t>(path),
        told(": voxel 0,0,0 holds 16777217, not a whole number from -32768 to 32767").c_str(),
        DataError);
    integers.voxels.assign(8, 256);
    write_nifti(path, integers);
    CHECK_THROWS_WITH_AS(read_labels(path),
                         told(": voxel 0,0,0 holds 256, not a whole number from 0 to 255").c_str(),
                         DataError);
    write_nifti(path, make_volume<std::uint8_t>({2, 2, 2}, {}, 4));
    CHECK_THROWS_WITH_AS(read_labels(path), told(": has 4 volumes; a label map has one").c_str(),
                         DataError);
  }
  TEST_CASE("colors become channels when asked for") {
    const Folder folder;
    RawHeader header;
    header.datatype = 128, header.bitpix = 24, header.dim = {4, 2, 2, 1, 2, 1, 1, 1};
    Bytes bytes(24);
    for (std::size_t k = 0; k < 24; ++k) bytes[k] = static_cast<unsigned char>(k);
    put_file(folder / "a.nii", header.bytes() + bytes);
    NiftiOptions options;
    options.colors_as_channels = true;
    const auto volume = read_nifti<std::uint8_t>(folder / "a.nii", options);
    CHECK(volume.channels == 6);
    CHECK(volume.at(1, 1, 0, 2) == 11);
    CHECK(volume.at(1, 1, 0, 3) == 21);
  }
  TEST_CASE("a label table travels with its file") {
    const Folder folder;
    auto labels = make_volume<std::uint8_t>({3, 3, 3}, {}, 1, 2);
    NiftiWriteOptions options;
    options.labels = {{1, "liver"}, {2, "kidney <left>"}, {255, "a]b & c"}};
    for (const bool big_endian : {false, true})
      for (const char* name : {"a.nii.gz", "b.hdr"}) {
        options.big_endian = big_endian;
        write_nifti(folder / name, labels, options);
        const auto header = read_nifti_header(folder / name);
        CHECK(label_names(header) == options.labels);
        CHECK(header.warnings.empty());
        CHECK(read_labels(folder / name).voxels == labels.voxels);
      }
    write_nifti(folder / "plain.nii", labels);
    CHECK(label_names(read_nifti_header(folder / "plain.nii")).empty());
    if (!python_has(folder, "nibabel")) {
      MESSAGE("skipped: /usr/bin/python3 has no nibabel");
      return;
    }
    options.big_endian = false;
    write_nifti(folder / "a.nii.gz", labels, options);
    CHECK(python(folder,
                 "import sys, nibabel as nib, xml.etree.ElementTree as et\n"
                 "e = nib.load(sys.argv[1]).header.extensions[0].get_content()\n"
                 "t = et.fromstring(e.rstrip(b'\\0'))\n"
                 "n = {int(l.get('Key')): l.text for l in t.iter('Label')}\n"
                 "assert n == {1: 'liver', 2: 'kidney <left>', 255: 'a]b & c'}, n\n",
                 folder / "a.nii.gz"));
  }
  TEST_CASE("what cannot be written is refused by name and leaves nothing") {
    const Folder folder;
    const auto volume = make_volume<float>({2, 2, 2});
    CHECK_THROWS_WITH_AS(write_nifti(folder / "a.png", volume),
                         ("segmed: nifti: " + (folder / "a.png") +
                          ": is no name for a NIfTI file; end it in .nii, .nii.gz, .hdr or .img")
                             .c_str(),
                         ConfigError);
    CHECK_THROWS_AS(write_nifti(folder / "none/a.nii", volume), FileError);
    CHECK_THROWS_AS(write_nifti(folder / "a.nii", Volume<float>{}), ShapeError);
    auto flat = volume;
    flat.geometry = Geometry::of_spacing(1, 1, 0);
    CHECK_THROWS_WITH_AS(
        write_nifti(folder / "a.nii", flat),
        ("segmed: nifti: " + (folder / "a.nii") + ": the affine has no inverse").c_str(),
        DataError);
    CHECK(folder.names().empty());
  }
  TEST_CASE("nibabel sees the same voxels and affine in files written here") {
    const Folder folder;
    if (!python_has(folder, "nibabel")) {
      MESSAGE("skipped: /usr/bin/python3 has no nibabel");
      return;
    }
    std::vector<std::string> files;
    const auto add = [&](const auto& volume, const std::string& name, int version, bool big) {
      NiftiWriteOptions options;
      options.version = version, options.big_endian = big;
      write_nifti(folder / name, volume, options);
      files.push_back(folder / name);
    };
    add(spread<std::int16_t>({5, 4, 3}, 1), "a.nii.gz", 1, false);
    add(spread<std::uint16_t>({5, 4, 3}, 2), "b.nii", 1, true);
    add(spread<float>({5, 4, 3}, 3), "c.hdr", 1, false);
    add(spread<double>({5, 4, 3}, 1), "d.nii", 2, true);
    add(spread<std::uint8_t>({5, 4, 3}, 2), "e.nii.gz", 2, false);
    compare_files(folder, files);
    // The qform by itself says the same where axes are at right angles.
    write_nifti(
        folder / "q.nii",
        reorient(make_volume<float>({4, 5, 6}, Geometry::of_spacing(1, 2, 3).shifted(3, 2, 1)),
                 "PSL"));
    CHECK(python(folder,
                 "import sys, numpy as np, nibabel as nib\n"
                 "h = nib.load(sys.argv[1]).header\n"
                 "assert np.allclose(h.get_qform(), h.get_sform(), atol=1e-5)\n"
                 "assert nib.aff2axcodes(h.get_qform()) == tuple('PSL')\n"
                 "assert h.get_xyzt_units()[0] == 'mm'\n",
                 folder / "q.nii"));
  }
  TEST_CASE("nibabel sees the same in real files of every kind") {
    const Folder folder;
    if (data_folder().empty() || !python_has(folder, "nibabel")) {
      MESSAGE("skipped: SEGMED_DATA or nibabel is missing");
      return;
    }
    std::vector<std::string> files;
    for (const char* name :
         {"nibabel/example4d.nii.gz", "nibabel/functional.nii", "nibabel/resampled_anat_moved.nii",
          "nifti-rs/27/float32.nii", "nifti-rs/27/float64.nii", "nifti-rs/27/int64.nii",
          "nifti-rs/27/int8.nii", "nifti-rs/avg152T1_LR_nifti.nii.gz",
          "nifti-rs/minimal_extended_hdr.nii", "niivue/LAS_drawing_correct.nii.gz",
          "niivue/hippo.nii.gz", "niivue/low_res.nii.gz", "niivue/tstat1.nii.gz"})
      files.push_back(data_folder() + "/nifti_odd/" + name);
    for (const char* number : {"001", "003", "004", "006", "199", "367"})
      for (const char* part : {"imagesTr", "labelsTr"}) {
        const std::string file =
            data_folder() + "/hippocampus_msd/" + part + "/hippocampus_" + number + ".nii.gz";
        if (!get_file(file).empty()) files.push_back(file);
      }
    compare_files(folder, files);
    for (const char* broken :
         {"nibabel/nifti2.hdr", "nifti-rs/avg152T1_LR_nifti.hdr.gz", "nifti-rs/minimal.img.gz",
          "nifti-rs/fuzz_artifacts/crash-1.nii",
          "nifti-rs/fuzz_artifacts/crash-ed7d46344d7efb3b9f0c374d66d2e02f66cc447d.nii",
          "nifti-rs/fuzz_artifacts/crash-98aa054390f8d3f932f190dc22ef62c6ff2d6619",
          "nifti-rs/fuzz_artifacts/crash-d03c6346fe83a026738f6b8cd2a9335a3f8cb158",
          "niivue/mha.mha"})
      CHECK_THROWS_AS(read_nifti<float>(data_folder() + "/nifti_odd/" + broken), FileError);
  }
  TEST_CASE("one volume in all 48 orientations is one volume in RAS") {
    if (data_folder().empty()) {
      MESSAGE("skipped: SEGMED_DATA is not set");
      return;
    }
    Volume<float> first;
    int seen = 0;
    std::string order = "012";
    do {
      for (int flips = 0; flips < 8; ++flips) {
        std::string code;
        for (std::size_t k = 0; k < 3; ++k)
          code += ((flips >> k) & 1 ? "LPI" : "RAS")[std::size_t(order[k] - '0')];
        const std::string path = data_folder() + "/nifti_orientations_niivue/" + code + ".nii.gz";
        if (::access(path.c_str(), F_OK) != 0) continue;
        ++seen;
        const auto volume = read_nifti<float>(path);
        CHECK(volume.geometry.orientation() == code);
        const auto ras = reorient(volume);
        if (first.empty()) first = ras;
        CHECK(ras.extent == first.extent);
        CHECK(ras.voxels == first.voxels);
        CHECK(ras.geometry.same_grid(first.geometry, 1e-4));
      }
    } while (std::next_permutation(order.begin(), order.end()));
    CHECK(seen > 0);
    MESSAGE(seen << " orientations");
  }
  TEST_CASE("the hippocampus cohort has labels 0, 1 and 2 on the grid of its images") {
    if (data_folder().empty()) {
      MESSAGE("skipped: SEGMED_DATA is not set");
      return;
    }
    int pairs = 0;
    for (int number = 1; number < 60; ++number) {
      char name[64];
      std::snprintf(name, sizeof name, "hippocampus_%03d.nii.gz", number);
      const std::string folder = data_folder() + "/hippocampus_msd/";
      const std::string image = folder + "imagesTr/" + name, label = folder + "labelsTr/" + name;
      if (::access(image.c_str(), F_OK) != 0 || ::access(label.c_str(), F_OK) != 0) continue;
      ++pairs;
      const auto scan = read_nifti<float>(image);
      const auto labels = read_labels(label);
      CHECK(same_grid(scan, labels));
      CHECK(scan.geometry.orientation() == "RAS");
      CHECK(*std::max_element(labels.voxels.begin(), labels.voxels.end()) == 2);
    }
    CHECK(pairs > 20);
  }
}
