// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include <doctest/doctest.h>

#include "gz.hpp"
#include <segmed/image/nifti.hpp>

using namespace segmed;
using namespace segmed_test;

namespace {

const float not_a_number = std::numeric_limits<float>::quiet_NaN();
const float infinity = std::numeric_limits<float>::infinity();

// A default header with one thing changed, and 64 floats behind it.
Bytes image(const std::function<void(RawHeader&)>& change) {
  RawHeader header;
  change(header);
  return header.bytes() + ramp_voxels(header.swapped);
}

// What reading says: the error's text behind the path, or the warnings.
std::string answer(const Folder& folder, const std::string& name, const Bytes& bytes,
                   const NiftiOptions& options = {}) {
  const std::string path = folder / name;
  put_file(path, bytes);
  std::vector<std::string> warnings;
  try {
    const Volume<float> volume = read_nifti<float>(path, options, &warnings);
    std::string text = "read";
    for (std::size_t k = 0; k < volume.voxels.size(); ++k)
      if (volume.voxels[k] != float(k)) text = "read, other voxels";
    for (const std::string& warning : warnings) text += "; " + warning;
    return text;
  } catch (const Error& error) {
    std::string text = error.what();
    const std::size_t at = text.find(path + ": ");
    return at == std::string::npos ? "no path: " + text : text.substr(at + path.size() + 2);
  }
}

}  // namespace

TEST_SUITE("image/nifti_header") {
  TEST_CASE("a hostile field gets its sentence") {
    const Folder folder;
    struct Row {
      std::function<void(RawHeader&)> change;
      const char* answer;
    };
    const Row rows[] = {
        {[](RawHeader&) {}, "read"},
        {[](RawHeader& h) { h.swapped = true; }, "read"},
        {[](RawHeader& h) { h.dim = {7, 32767, 32767, 32767, 32767, 32767, 32767, 32767}; },
         "dim 7,32767,32767,32767,32767,32767,32767,32767 declares more than 17179869184 bytes of "
         "voxels; most_bytes is the limit"},
        {[](RawHeader& h) { h.dim = {7, 16384, 16384, 16384, 16384, 256, 1, 1}; },
         "dim 7,16384,16384,16384,16384,256,1,1 declares more than 17179869184 bytes of voxels; "
         "most_bytes is the limit"},
        {[](RawHeader& h) { h.dim = {3, 1600, 1600, 1600, 1, 1, 1, 1}; },
         "is truncated: its header declares 16384000352 bytes, the file has 608"},
        {[](RawHeader& h) { h.dim[0] = -1; }, "dim[0] is -1, not 1 to 7 (dim -1,4,4,4,1,1,1,1)"},
        {[](RawHeader& h) { h.dim[0] = 8; }, "dim[0] is 8, not 1 to 7 (dim 8,4,4,4,1,1,1,1)"},
        {[](RawHeader& h) { h.dim[2] = -4; }, "dim[2] is -4, not 1 or more (dim 3,4,-4,4,1,1,1,1)"},
        {[](RawHeader& h) { h.dim[1] = 0; }, "dim[1] is 0, not 1 or more (dim 3,0,4,4,1,1,1,1)"},
        {[](RawHeader& h) { h.dim[4] = -9; }, "read"},  // behind dim[0]: not used
        {[](RawHeader& h) { h.vox_offset = 0; },
         "vox_offset is 0, not a whole number of at least 352"},
        {[](RawHeader& h) { h.vox_offset = -100; },
         "vox_offset is -100, not a whole number of at least 352"},
        {[](RawHeader& h) { h.vox_offset = not_a_number; },
         "vox_offset is nan, not a whole number of at least 352"},
        {[](RawHeader& h) { h.vox_offset = infinity; },
         "vox_offset is inf, not a whole number of at least 352"},
        {[](RawHeader& h) { h.vox_offset = 1e30f; },
         "vox_offset is 1e+30, not a whole number of at least 352"},
        {[](RawHeader& h) { h.vox_offset = 352.5f; },
         "vox_offset is 352.5, not a whole number of at least 352"},
        {[](RawHeader& h) { h.vox_offset = 1e6f; },
         "is truncated: its header declares 1000256 bytes, the file has 608"},
        {[](RawHeader& h) { h.bitpix = 8; },
         "read; bitpix is 8 where datatype FLOAT32 has 32; the datatype is believed"},
        {[](RawHeader& h) { h.datatype = 1536; }, "datatype 1536 (FLOAT128) is not supported"},
        {[](RawHeader& h) { h.datatype = 1; }, "datatype 1 (BINARY) is not supported"},
        {[](RawHeader& h) { h.datatype = 0; }, "datatype 0 (UNKNOWN) is not supported"},
        {[](RawHeader& h) { h.datatype = -4; }, "datatype -4 (**ILLEGAL**) is not supported"},
        {[](RawHeader& h) { h.datatype = 128, h.bitpix = 24; },
         "holds colors (RGB24); set colors_as_channels to read them"},
        {[](RawHeader& h) { h.datatype = 32, h.bitpix = 64, h.dim[3] = 2; },
         "holds complex numbers (COMPLEX64), which are no scan"},
        {[](RawHeader& h) {
           h.pixdim = {1, 0, 0, 0};
         },
         "read; pixdim[1] is 0; taken as 1; pixdim[2] is 0; taken as 1; pixdim[3] is 0; taken as "
         "1"},
        {[](RawHeader& h) {
           h.pixdim = {1, not_a_number, infinity, 1};
         },
         "read; pixdim[1] is nan; taken as 1; pixdim[2] is inf; taken as 1"},
        {[](RawHeader& h) {
           h.pixdim = {1, -1, 1, 1};
         },
         "read; pixdim[1] is -1; taken as 1"},
        {[](RawHeader& h) { h.srow.fill(not_a_number); },
         "sform is singular or not finite: no voxel has a place"},
        {[](RawHeader& h) { h.srow.fill(0); },
         "sform is singular or not finite: no voxel has a place"},
        {[](RawHeader& h) { h.sform = 0, h.quatern[0] = not_a_number; },
         "qform is singular or not finite: no voxel has a place"},
        {[](RawHeader& h) { h.srow[1] = 0.5f; },
         "read; qform and sform differ by 1.5 mm at a corner; the sform is believed"},
        {[](RawHeader& h) { h.sform = h.qform = 0; },
         "read; has neither sform nor qform; its axes are taken as R, A, S"},
        {[](RawHeader& h) { h.units = 1; }, "read; is in meters; brought to mm"},
        {[](RawHeader& h) { h.slope = 0, h.inter = 5; }, "read"},
        {[](RawHeader& h) { h.slope = not_a_number; }, "read"},
        {[](RawHeader& h) { h.inter = not_a_number; }, "read; scl_inter is nan; taken as 0"},
        {[](RawHeader& h) { h.magic = std::string(4, '\0'); },
         "has no NIfTI magic (an Analyze 7.5 file?); allow_analyze reads it without a promise"},
        {[](RawHeader& h) { h.magic = std::string("ni1\0", 4); },
         "is the header of a .hdr/.img pair by its magic, but a single file by name; allow_analyze "
         "reads it without a promise"},
        {[](RawHeader& h) { h.size = 347; },
         "is no NIfTI file: its first number is 347, neither 348 nor 540"},
        {[](RawHeader& h) { h.size = 540; }, "is truncated: its header declares"},
    };
    for (const Row& row : rows) {
      const Bytes bytes = image(row.change);
      if (bytes[0] == 0x1c && bytes[1] == 2) {  // NIfTI-1 bytes read as NIfTI-2
        CHECK(answer(folder, "file.nii", bytes) == "has no NIfTI-2 magic");
        continue;
      }
      CHECK(answer(folder, "file.nii", bytes) == row.answer);
      if (std::string(row.answer).rfind("is truncated", 0) == 0) continue;
      const std::string packed = answer(folder, "file.nii.gz", gz(bytes));
      CHECK(packed == row.answer);
    }
  }
  TEST_CASE("a declared size that gzip cannot hold is refused before anything is allocated") {
    const Folder folder;
    const Bytes bytes = gz(image([](RawHeader& h) { h.dim = {3, 1600, 1600, 1600, 1, 1, 1, 1}; }));
    CHECK(answer(folder, "small.nii.gz", bytes) ==
          "is truncated: its header declares 16384000352 bytes, more than " +
              std::to_string(bytes.size()) + " bytes of gzip can hold");
  }
  TEST_CASE("truncated files say what they have and need") {
    const Folder folder;
    const Bytes whole = image([](RawHeader&) {});
    const auto cut = [&](std::ptrdiff_t count) {
      return Bytes(whole.begin(), whole.begin() + count);
    };
    CHECK(answer(folder, "a.nii", {}) == "is truncated: it has 0 bytes");
    CHECK(answer(folder, "a.nii", cut(3)) == "is truncated: it has 3 bytes");
    CHECK(answer(folder, "a.nii", cut(200)) ==
          "is truncated: it has 200 bytes, its header needs 348");
    CHECK(answer(folder, "a.nii", cut(348)) ==
          "is truncated: its header declares 608 bytes, the file has 348");
    CHECK(answer(folder, "a.nii", cut(607)) ==
          "is truncated: its header declares 608 bytes, the file has 607");
    CHECK(answer(folder, "a.nii.gz", gz(cut(607))) ==
          "is truncated: the voxels ends at byte 608 but the content ends at byte 607");
    for (std::ptrdiff_t count = 0; count < 608; ++count) {
      CHECK(answer(folder, "a.nii", cut(count)).rfind("is truncated", 0) == 0);
      CHECK(answer(folder, "a.nii.gz", gz(cut(count))).rfind("is truncated", 0) == 0);
    }
  }
  TEST_CASE("gzip that is damaged, goes on, or hides under another name is told") {
    const Folder folder;
    const Bytes whole = image([](RawHeader&) {}), packed = gz(whole);
    Bytes bad = packed;
    bad[bad.size() - 6] ^= 1;
    CHECK(answer(folder, "a.nii.gz", bad) == "its gzip CRC is wrong: the content was damaged");
    bad = packed;
    bad[bad.size() - 3] ^= 1;
    CHECK(answer(folder, "a.nii.gz", bad) == "its gzip length (ISIZE) is wrong: content was lost");
    CHECK(answer(folder, "a.nii.gz", Bytes(packed.begin(), packed.end() - 8)) ==
          "is truncated: its gzip data ends before the checksum, after 608 bytes of content");
    CHECK(answer(folder, "a.nii.gz", packed + Bytes(9, 'x')) ==
          "read; ignored 9 bytes after the gzip data");
    CHECK(answer(folder, "a.nii.gz",
                 gz(Bytes(whole.begin(), whole.begin() + 400)) +
                     gz(Bytes(whole.begin() + 400, whole.end()))) == "read");
    CHECK(answer(folder, "a.nii.gz", whole) ==
          "read; " + (folder / "a.nii.gz") + " is not gzip, though named so");
    CHECK(answer(folder, "a.nii", packed) ==
          "read; " + (folder / "a.nii") + " is gzip, though not named so");
    CHECK(answer(folder, "a.nii", whole + Bytes(5, 0)) == "read; ignored 5 bytes after the voxels");
    CHECK(answer(folder, "a.nii.gz", gz(whole + Bytes(5, 0))) ==
          "read; ignored 5 bytes after the voxels");
    CHECK(answer(folder, "a.nii.gz", gz(whole + Bytes(std::size_t(8) << 20, 0))) ==
          "inflates to more than 65536 bytes beyond what its header declares");
  }
  TEST_CASE("extensions that lie about their size are left out and said") {
    const Folder folder;
    const auto with = [&](std::int32_t size) {
      return image([&](RawHeader& h) {
        h.vox_offset = 384;
        h.after = Bytes{1, 0, 0, 0} + bytes_of(std::vector<std::int32_t>{size, 6}) + Bytes(24, 'x');
      });
    };
    CHECK(answer(folder, "a.nii", with(32)) == "read");
    for (const std::int32_t size : {-16, 0, 4096, std::numeric_limits<std::int32_t>::max() - 15})
      CHECK(answer(folder, "a.nii", with(size)) ==
            "read; the extension at byte 352 declares " + std::to_string(size) +
                " bytes where 32 are left; extensions from there on are not read");
    put_file(folder / "a.nii", with(32));
    const NiftiHeader header = read_nifti_header(folder / "a.nii");
    REQUIRE(header.extensions.size() == 1);
    CHECK(header.extensions[0].code == 6);
    CHECK(header.extensions[0].content == std::string(24, 'x'));
    CHECK(answer(folder, "a.nii", image([](RawHeader& h) {
                   h.vox_offset = 352 + (1 << 24);
                   h.after = Bytes{1, 0, 0, 0} + bytes_of(std::vector<std::int32_t>{1 << 24, 6});
                 })) == "is truncated: its header declares 16777824 bytes, the file has 616");
  }
  TEST_CASE("strict reading makes an error of every warning") {
    const Folder folder;
    NiftiOptions strict;
    strict.strict = true;
    CHECK(answer(folder, "a.nii", image([](RawHeader&) {}), strict) == "read");
    CHECK(answer(folder, "a.nii", image([](RawHeader& h) { h.pixdim[1] = 0; }), strict) ==
          "pixdim[1] is 0; taken as 1");
    CHECK(answer(folder, "a.nii", image([](RawHeader&) {}) + Bytes(1, 0), strict) ==
          "ignored 1 bytes after the voxels");
  }
  TEST_CASE("Analyze files are read only when asked for, without orientation or scaling") {
    const Folder folder;
    NiftiOptions analyze;
    analyze.allow_analyze = true;
    const Bytes bytes = image([](RawHeader& h) {
      h.magic = std::string(4, '\0'), h.slope = 3, h.pixdim = {0, 2, 3, 4};
    });
    CHECK(answer(folder, "a.nii", bytes, analyze) ==
          "read; is Analyze 7.5: its orientation is unknown");
    CHECK(read_nifti_header(folder / "a.nii", analyze).geometry.spacing()[2] == 4);
  }
  TEST_CASE("the sform is taken, else the qform, else the voxel sizes") {
    const Folder folder;
    RawHeader header;
    header.pixdim = {-1, 2, 3, 4};
    header.quatern = {0, 0, 0, 10, 20, 30};
    header.srow = {-2, 0, 0, 7, 0, 3, 0, 8, 0, 0, 4, 9};
    const auto affine = [&] {
      put_file(folder / "a.nii", header.bytes() + ramp_voxels());
      return read_nifti_header(folder / "a.nii").geometry.affine;
    };
    CHECK(affine()(0, 0) == -2);
    CHECK(affine()(1, 3) == 8);
    header.sform = 0;
    CHECK(affine()(0, 0) == 2);
    CHECK(affine()(2, 2) == -4);  // pixdim[0] is -1
    CHECK(affine()(1, 3) == 20);
    header.qform = 0;
    CHECK(affine()(2, 2) == 4);
    CHECK(affine()(1, 3) == 0);
    header.units = 3;
    CHECK(affine()(2, 2) == doctest::Approx(0.004));
  }
  TEST_CASE("a pair is found from either half, and a missing half is named") {
    const Folder folder;
    RawHeader header;
    header.magic = std::string("ni1\0", 4), header.vox_offset = 0;
    put_file(folder / "a.hdr", header.bytes());
    const std::string prefix = "segmed: nifti: " + (folder / "a.hdr");
    CHECK_THROWS_WITH_AS(
        read_nifti_header(folder / "a.hdr"),
        (prefix + ": the other half of the pair, " + (folder / "a.img") + ", is missing").c_str(),
        FileError);
    put_file(folder / "a.img.gz", gz(ramp_voxels()));
    CHECK(read_nifti<float>(folder / "a.hdr").at(3, 3, 3) == 63);
    CHECK(read_nifti<float>(folder / "a.img.gz").at(3, 3, 3) == 63);
    put_file(folder / "a.img", ramp_voxels());
    CHECK(read_nifti<float>(folder / "a.img").at(3, 3, 3) == 63);
    put_file(folder / "a.img", Bytes(255, 0));
    CHECK_THROWS_WITH_AS(read_nifti<float>(folder / "a.hdr"),
                         ("segmed: nifti: " + (folder / "a.img") +
                          ": is truncated: its header declares 256 bytes, the file has 255")
                             .c_str(),
                         FileError);
    header.magic = std::string("n+1\0", 4);
    put_file(folder / "a.hdr", header.bytes());
    CHECK_THROWS_WITH_AS(read_nifti_header(folder / "a.hdr"),
                         (prefix + ": is half of a .hdr/.img pair by its name, but a single file "
                                   "by its header")
                             .c_str(),
                         FileError);
    CHECK_THROWS_WITH_AS(
        read_nifti_header(folder / "none.hdr"),
        ("segmed: file: " + (folder / "none.hdr") + ": No such file or directory").c_str(),
        FileError);
  }
  TEST_CASE("no change of a header's bytes crashes the reader or hides behind another error") {
    const Folder folder;
    const Bytes good = image([](RawHeader& h) {
      h.vox_offset = 384;
      h.after = Bytes{1, 0, 0, 0} + bytes_of(std::vector<std::int32_t>{32, 6}) + Bytes(24, 'x');
    });
    NiftiOptions options;
    options.most_bytes = 1 << 20;
    std::uint64_t state = 7;
    const auto next = [&](std::uint64_t below) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      return std::size_t((state >> 33) % below);
    };
    int read = 0;
    for (int round = 0; round < 4000; ++round) {
      Bytes bytes = good;
      for (std::size_t edits = 1 + next(4); edits > 0; --edits) {
        static constexpr unsigned char values[] = {0, 1, 0x7f, 0x80, 0xff};
        bytes[next(400)] = next(2) ? values[next(5)] : static_cast<unsigned char>(next(256));
      }
      if (next(4) == 0) bytes.resize(next(bytes.size()));
      if (next(3) == 0) bytes = gz(bytes);
      const std::string text = answer(folder, "fuzz.nii", bytes, options);
      CHECK(text.rfind("no path", 0) != 0);
      read += text.rfind("read", 0) == 0;
    }
    CHECK(read > 100);
  }
}
