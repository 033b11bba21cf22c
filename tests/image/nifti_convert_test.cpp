// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "gz.hpp"
#include <segmed/image/nifti_convert.hpp>

using namespace segmed;
using namespace segmed_test;

namespace {

// Bytes that are all different, for voxels of any type.
Bytes counted(std::size_t count) {
  Bytes bytes(count);
  for (std::size_t k = 0; k < count; ++k) bytes[k] = static_cast<unsigned char>(k * 37 + k / 251);
  return bytes;
}

Bytes content(const std::string& path) {
  FileReader reader(path);
  Bytes bytes(std::size_t(reader.most_bytes()));
  bytes.resize(std::size_t(reader.read_some(bytes.data(), Index(bytes.size()))));
  return bytes;
}

struct Type {
  std::int16_t code, bytes;
};
const Type types[] = {{2, 1},   {4, 2},   {8, 4},   {16, 4},   {32, 8},   {64, 8},    {128, 3},
                      {256, 1}, {512, 2}, {768, 4}, {1024, 8}, {1280, 8}, {1792, 16}, {2304, 4}};

RawHeader header_of(const Type& type, bool swapped) {
  RawHeader header;
  header.dim = {5, 4, 3, 2, 2, 3, 1, 1};
  header.datatype = type.code, header.bitpix = std::int16_t(8 * type.bytes);
  header.swapped = swapped, header.slope = 2.5f, header.inter = -3, header.qform = 0;
  header.srow = {-2, 0, 0, 7, 0, 3, 0, 8, 0, 0, 4, 9};
  return header;
}

}  // namespace

TEST_SUITE("image/nifti_convert") {
  TEST_CASE("without options only the container changes, whatever the type and byte order") {
    const Folder folder;
    for (const Type& type : types)
      for (const bool swapped : {false, true}) {
        const Bytes whole =
            header_of(type, swapped).bytes() + counted(std::size_t(144 * type.bytes));
        put_file(folder / "in.nii", whole);
        CHECK(convert_nifti(folder / "in.nii", folder / "out.nii.gz").empty());
        CHECK(content(folder / "out.nii.gz") == whole);
        convert_nifti(folder / "out.nii.gz", folder / "pair.hdr");
        CHECK(get_file(folder / "pair.img") == counted(std::size_t(144 * type.bytes)));
        convert_nifti(folder / "pair.img", folder / "packed.img.gz");
        convert_nifti(folder / "packed.hdr.gz", folder / "back.nii");
        CHECK(get_file(folder / "back.nii") == whole);
      }
  }
  TEST_CASE("a file can take its own place") {
    const Folder folder;
    const Bytes whole = header_of({4, 2}, false).bytes() + counted(288);
    put_file(folder / "a.nii", whole);
    convert_nifti(folder / "a.nii", folder / "a.nii");
    CHECK(get_file(folder / "a.nii") == whole);
    CHECK(folder.names().size() == 1);
  }
  TEST_CASE("extensions travel, in both kinds of container") {
    const Folder folder;
    RawHeader header;
    header.vox_offset = 384;
    header.after = Bytes{1, 0, 0, 0} + bytes_of(std::vector<std::int32_t>{32, 6}) + Bytes(24, 'x');
    put_file(folder / "a.nii", header.bytes() + ramp_voxels());
    convert_nifti(folder / "a.nii", folder / "b.hdr.gz");
    const auto pair = read_nifti_header(folder / "b.img.gz");
    REQUIRE(pair.extensions.size() == 1);
    CHECK(pair.extensions[0].content == std::string(24, 'x'));
    convert_nifti(folder / "b.img.gz", folder / "c.nii");
    CHECK(get_file(folder / "c.nii") == get_file(folder / "a.nii"));
    ConvertOptions turn;
    turn.orient = "LPS";
    CHECK(convert_nifti(folder / "a.nii", folder / "d.nii", turn) ==
          std::vector<std::string>{"copied extensions may describe the old grid"});
  }
  TEST_CASE("turning the axes moves stored voxels of every type, and back again") {
    const Folder folder;
    for (const Type& type : types)
      for (const bool swapped : {false, true}) {
        const RawHeader header = header_of(type, swapped);
        const auto size = std::size_t(type.bytes);
        const Bytes voxels = counted(144 * size);
        put_file(folder / "a.nii", header.bytes() + voxels);
        ConvertOptions turn;
        turn.orient = "ARS";
        convert_nifti(folder / "a.nii", folder / "b.nii.gz", turn);
        const auto there = read_nifti_header(folder / "b.nii.gz");
        CHECK(there.geometry.orientation() == "ARS");
        CHECK(there.extent() == Extent3{3, 4, 2});
        CHECK(there.volumes() == 6);
        CHECK(there.slope == 2.5);
        CHECK(there.swapped == swapped);
        CHECK(there.datatype == type.code);
        CHECK(there.qform.same_grid(there.sform, 1e-5));
        const Bytes moved = content(folder / "b.nii.gz");
        int wrong = 0;
        for (std::size_t v = 0; v < 6; ++v)
          for (std::size_t z = 0; z < 2; ++z)
            for (std::size_t y = 0; y < 3; ++y)
              for (std::size_t x = 0; x < 4; ++x) {
                // x ran to the left: reversed, and now second.
                const std::size_t from = (((v * 2 + z) * 3 + y) * 4 + x) * size;
                const std::size_t to = 352 + (((v * 2 + z) * 4 + (3 - x)) * 3 + y) * size;
                wrong += std::memcmp(voxels.data() + from, moved.data() + to, size) != 0;
              }
        CHECK(wrong == 0);
        turn.orient = "LAS";
        convert_nifti(folder / "b.nii.gz", folder / "c.nii", turn);
        Bytes back = get_file(folder / "c.nii");
        CHECK(Bytes(back.begin() + 352, back.end()) == voxels);
        CHECK(read_nifti_header(folder / "c.nii")
                  .geometry.same_grid(read_nifti_header(folder / "a.nii").geometry, 0));
      }
  }
  TEST_CASE("an orientation or spacing that is there already changes no byte") {
    const Folder folder;
    const Bytes whole = header_of({16, 4}, true).bytes() + counted(576);
    put_file(folder / "a.nii", whole);
    ConvertOptions same;
    same.orient = "LAS";
    same.spacing = {2.0, 3.0, 4.0};
    CHECK(convert_nifti(folder / "a.nii", folder / "b.nii", same).empty());
    CHECK(get_file(folder / "b.nii") == whole);
  }
  TEST_CASE("qform and sform each keep their own place") {
    const Folder folder;
    RawHeader header = header_of({4, 2}, false);
    header.qform = 2, header.sform = 4;
    header.pixdim = {1, 2, 3, 4};
    header.quatern = {0, 0, 0, 100, 200, 300};
    put_file(folder / "a.nii", header.bytes() + counted(288));
    ConvertOptions turn;
    turn.orient = "RPI";  // of the sform, which runs L, A, S
    convert_nifti(folder / "a.nii", folder / "b.nii", turn);
    const auto there = read_nifti_header(folder / "b.nii");
    CHECK(there.qform_code == 2);
    CHECK(there.sform_code == 4);
    CHECK(there.sform.orientation() == "RPI");
    CHECK(there.qform.orientation() == "LPI");
    CHECK((there.qform.to_world(3, 2, 1) - Eigen::Vector3d(100, 200, 300)).norm() < 1e-4);
  }
  TEST_CASE("a file without orientation gets the one it was taken for, with a word") {
    const Folder folder;
    RawHeader header;
    header.sform = header.qform = 0;
    put_file(folder / "a.nii", header.bytes() + ramp_voxels());
    ConvertOptions turn;
    turn.orient = "LPS";
    const auto notes = convert_nifti(folder / "a.nii", folder / "b.nii", turn);
    CHECK(notes.back() == "the file had no orientation; the one it was taken for was written");
    CHECK(read_nifti_header(folder / "b.nii").geometry.orientation() == "LPS");
  }
  TEST_CASE("slice times are dropped with a word where they would lie") {
    const Folder folder;
    RawHeader header;
    Bytes whole = header.bytes() + ramp_voxels();
    whole[39] = 3 << 4;  // slices along z
    whole[122] = 1;      // in order
    put_file(folder / "a.nii", whole);
    ConvertOptions turn;
    turn.orient = "SAR";
    CHECK(convert_nifti(folder / "a.nii", folder / "b.nii", turn).empty());
    CHECK(get_file(folder / "b.nii")[39] == 1 << 4);
    CHECK(get_file(folder / "b.nii")[122] == 1);
    turn.orient = "RAI";
    CHECK(convert_nifti(folder / "a.nii", folder / "b.nii", turn) ==
          std::vector<std::string>{"dropped the slice times: the slices were reversed"});
    CHECK(get_file(folder / "b.nii")[122] == 0);
  }
  TEST_CASE("spacing interpolates stored values and keeps type, scaling and field of view") {
    const Folder folder;
    RawHeader header;
    for (const bool swapped : {false, true}) {
      header.swapped = swapped, header.slope = 2;
      put_file(folder / "a.nii", header.bytes() + ramp_voxels(swapped));
      ConvertOptions finer;
      finer.spacing = {0.5, 1.0, 2.0};
      CHECK(convert_nifti(folder / "a.nii", folder / "b.nii", finer).empty());
      const auto there = read_nifti<float>(folder / "b.nii");
      const auto expected =
          resample(read_nifti<float>(folder / "a.nii"), {0.5, 1, 2}, Interpolation::linear);
      CHECK(there.extent == Extent3{8, 4, 2});
      CHECK(there.voxels == expected.voxels);
      CHECK(there.geometry.same_grid(expected.geometry, 1e-6));
    }
    auto shorts = make_volume<std::int16_t>({2, 1, 1}, {}, 2);
    shorts.voxels = {-10, 100, 11, 200};
    write_nifti(folder / "s.nii", shorts);
    ConvertOptions finer;
    finer.spacing = {0.25, 1.0, 1.0};
    CHECK(convert_nifti(folder / "s.nii", folder / "t.nii", finer) ==
          std::vector<std::string>{
              "interpolated linearly and rounded to INT16; use nearest for labels"});
    const auto there = read_nifti<std::int16_t>(folder / "t.nii");
    CHECK(there.extent == Extent3{8, 1, 1});
    CHECK(there.at(3, 0, 0, 0) == -2);
    CHECK(there.at(3, 0, 0, 1) == 138);
    finer.interpolation = Interpolation::nearest;
    CHECK(convert_nifti(folder / "s.nii", folder / "t.nii", finer).empty());
    CHECK(read_nifti<std::int16_t>(folder / "t.nii").at(3, 0, 0, 1) == 100);
  }
  TEST_CASE("labels are never interpolated between") {
    const Folder folder;
    NiftiWriteOptions options;
    options.labels = {{3, "spleen"}};
    auto labels = make_volume<std::uint8_t>({4, 4, 4});
    labels.at(2, 2, 2) = 3;
    write_nifti(folder / "a.nii", labels, options);
    ConvertOptions finer;
    finer.spacing = {0.3, 0.3, 0.3};
    convert_nifti(folder / "a.nii", folder / "b.nii", finer);
    for (const auto value : read_labels(folder / "b.nii").voxels) CHECK((value == 0 || value == 3));
    finer.interpolation = Interpolation::linear;
    CHECK_THROWS_WITH_AS(convert_nifti(folder / "a.nii", folder / "c.nii", finer),
                         ("segmed: convert: " + (folder / "a.nii") +
                          ": holds labels, between which nothing lies; use nearest")
                             .c_str(),
                         ConfigError);
    CHECK(::access((folder / "c.nii").c_str(), F_OK) != 0);
  }
  TEST_CASE("what could not keep its value is refused with the reason") {
    const Folder folder;
    auto large = make_volume<std::int64_t>({2, 2, 2}, {}, 1, (std::int64_t(1) << 53) + 1);
    write_nifti(folder / "a.nii", large);
    ConvertOptions finer;
    finer.spacing = {0.5, 0.5, 0.5};
    CHECK_THROWS_WITH_AS(convert_nifti(folder / "a.nii", folder / "b.nii", finer),
                         ("segmed: convert: " + (folder / "a.nii") +
                          ": holds 9007199254740993, "
                          "which has too many digits to interpolate; use nearest")
                             .c_str(),
                         DataError);
    finer.interpolation = Interpolation::nearest;
    convert_nifti(folder / "a.nii", folder / "b.nii", finer);
    CHECK(read_nifti<std::int64_t>(folder / "b.nii").at(3, 3, 3) == large.voxels[0]);
    auto holes = make_volume<float>({3, 3, 3}, {}, 1, 1.0f);
    holes.at(1, 1, 1) = std::nanf("");
    write_nifti(folder / "a.nii", holes);
    finer.interpolation = Interpolation::linear;
    CHECK(convert_nifti(folder / "a.nii", folder / "b.nii", finer) ==
          std::vector<std::string>{"voxels beside NaN or infinity took it over"});
    ConvertOptions wrong;
    wrong.orient = "RAX";
    CHECK_THROWS_AS(convert_nifti(folder / "a.nii", folder / "b.nii", wrong), ConfigError);
    wrong.orient.clear();
    wrong.spacing = {1.0, -1.0, 1.0};
    CHECK_THROWS_AS(convert_nifti(folder / "a.nii", folder / "b.nii", wrong), ConfigError);
    finer.spacing = {0.00005, 1.0, 1.0};
    CHECK_THROWS_WITH_AS(convert_nifti(folder / "a.nii", folder / "c.nii", finer),
                         doctest::Contains("an extent of 60000 voxels needs NIfTI-2"), DataError);
    CHECK_THROWS_AS(convert_nifti(folder / "a.nii", folder / "c.png"), ConfigError);
    put_file(folder / "broken.nii", counted(500));
    CHECK_THROWS_AS(convert_nifti(folder / "broken.nii", folder / "c.nii"), FileError);
    CHECK(::access((folder / "c.nii").c_str(), F_OK) != 0);
  }
  TEST_CASE("a sheared file stays sheared") {
    const Folder folder;
    RawHeader header;
    header.srow = {1, 0.5f, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
    put_file(folder / "a.nii", header.bytes() + ramp_voxels());
    ConvertOptions options;
    options.orient = "LPS";
    options.spacing = {2.0, 1.0, 1.0};
    convert_nifti(folder / "a.nii", folder / "b.nii", options);
    const auto there = read_nifti_header(folder / "b.nii").geometry;
    CHECK(there.is_sheared());
    CHECK(there.spacing()[0] == doctest::Approx(2));
    CHECK(there.spacing()[1] == doctest::Approx(1).epsilon(1e-6));
  }
}
