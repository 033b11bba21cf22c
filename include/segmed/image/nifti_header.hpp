// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include <nifti2_io.h>

#include <segmed/image/gzip.hpp>
#include <segmed/image/volume.hpp>

namespace segmed {

/// What to do with voxels that are NaN or infinite.
enum class NonFinite { keep, refuse, replace_by_zero };

/// How a NIfTI file is read.
struct NiftiOptions {
  NonFinite non_finite = NonFinite::keep;
  bool colors_as_channels = false;     // RGB and RGBA files, which are refused otherwise
  bool allow_analyze = false;          // files without NIfTI magic: no orientation, no scaling
  bool strict = false;                 // every warning is an error
  Index most_bytes = Index(16) << 30;  // of voxels as stored
};

/// A block of a NIfTI file that belongs to another program: its registered code and its content.
struct NiftiExtension {
  int code = 0;
  std::string content;
};

/// The two files, often the same one, that hold a NIfTI image's header and its voxels.
struct NiftiPaths {
  std::string header, voxels;
  bool is_pair() const { return header != voxels; }
};

/// A checked NIfTI-1 or -2 header: every field here is in range and fits the file.
struct NiftiHeader {
  NiftiPaths paths;
  int version = 1;                     // 1 or 2; 0 for Analyze 7.5
  bool swapped = false;                // the file's byte order is not this machine's
  std::array<Index, 8> dim{};          // [0] axes, [1..7] extents, 1 where not used
  int datatype = 0;                    // NIfTI's code
  Index voxel_bytes = 0;               // of one stored voxel
  int swap_bytes = 0;                  // that are turned round together
  Index voxel_offset = 0;              // in the file of the voxels
  double slope = 1, intercept = 0;     // value = stored * slope + intercept
  Geometry geometry;                   // in mm, from sform, else qform, else pixdim
  int qform_code = 0, sform_code = 0;  // 0: not given
  Geometry qform, sform;               // in the file's own unit, where given
  double unit_mm = 1;                  // the file's unit
  int intent = 0;                      // NIfTI's intent code
  std::vector<NiftiExtension> extensions;
  std::vector<std::string> warnings;
  std::vector<unsigned char> raw;    // as in the file, in this machine's byte order
  std::vector<unsigned char> after;  // what lies between the header and the voxels

  Extent3 extent() const { return {dim[1], dim[2], dim[3]}; }
  /// Volumes on the grid: the product of all axes behind the third.
  Index volumes() const { return dim[4] * dim[5] * dim[6] * dim[7]; }
  Index voxels() const { return dim[1] * dim[2] * dim[3] * volumes(); }
  Index data_bytes() const { return voxels() * voxel_bytes; }
  std::string datatype_name() const { return nifti_datatype_string(datatype); }
  bool is_scaled() const { return slope != 1 || intercept != 0; }

  /// Calls visit(raw) with the raw header as nifticlib's struct of its version, and stores changes.
  template <class Visit>
  void edit(Visit&& visit) {
    if (version == 2)
      edit_as<nifti_2_header>(visit);
    else
      edit_as<nifti_1_header>(visit);
  }
  /// The raw header with its bytes in the file's order.
  std::vector<unsigned char> encoded() const {
    std::vector<unsigned char> bytes = raw;
    if (swapped) swap_raw(bytes, version);
    return bytes;
  }
  static void swap_raw(std::vector<unsigned char>& bytes, int version) {
    if (version == 2)
      swap_as<nifti_2_header>(bytes, nifti_swap_as_nifti2);
    else
      swap_as<nifti_1_header>(bytes, nifti_swap_as_nifti1);
  }

 private:
  template <class Raw, class Visit>
  void edit_as(Visit& visit) {
    alignas(8) Raw header;
    std::memcpy(&header, raw.data(), sizeof header);
    visit(header);
    std::memcpy(raw.data(), &header, sizeof header);
  }
  template <class Raw>
  static void swap_as(std::vector<unsigned char>& bytes, void (*swap)(Raw*)) {
    alignas(8) Raw header;
    std::memcpy(&header, bytes.data(), sizeof header);
    swap(&header);
    std::memcpy(bytes.data(), &header, sizeof header);
  }
};

/// The files that a name stands for: one, or the two of a .hdr/.img pair, packed or not.
///
///   throws   FileError when one half of a pair is missing
inline NiftiPaths nifti_paths(const std::string& path) {
  for (const bool packed : {false, true})
    for (const bool header : {true, false}) {
      const std::string tail = packed ? ".gz" : "";
      if (!has_ending(path, (header ? ".hdr" : ".img") + tail)) continue;
      const std::string base = path.substr(0, path.size() - 4 - tail.size());
      const std::string other = base + (header ? ".img" : ".hdr");
      for (const std::string& found : {other + tail, other + (packed ? "" : ".gz")})
        if (::access(found.c_str(), F_OK) == 0)
          return header ? NiftiPaths{path, found} : NiftiPaths{found, path};
      if (::access(path.c_str(), F_OK) != 0) return {path, path};
      fail<FileError>("nifti", path, ": the other half of the pair, ", other, ", is missing");
    }
  return {path, path};
}

/// The checks of a header, one function per group of fields, before anyone uses a number of it.
class NiftiHeaderReader {
 public:
  NiftiHeaderReader(const std::string& path, const NiftiOptions& options) : options_(options) {
    header_.paths = nifti_paths(path);
    reader_ = std::make_unique<FileReader>(header_.paths.header);
    note_packing(*reader_);
    read_raw();
    header_.edit([&](const auto& raw) {
      check_magic(raw);
      check_sizes(raw);
      check_offset(raw);
      check_scaling(raw);
      check_geometry(raw);
    });
    read_after();
    find_voxels();
    if (options_.strict && !header_.warnings.empty()) refuse(header_.warnings.front());
  }
  NiftiHeader& header() { return header_; }
  /// The file of the voxels, read up to the first of them.
  FileReader& voxels() { return *reader_; }

 private:
  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail<FileError>("nifti", header_.paths.header, ": ", parts...);
  }
  template <class... Parts>
  void warn(const Parts&... parts) {
    std::ostringstream text;
    (text << ... << parts);
    header_.warnings.push_back(text.str());
  }
  void note_packing(const FileReader& reader) {
    const bool named = has_ending(reader.path(), ".gz");
    if (named && !reader.is_gzip()) warn(reader.path(), " is not gzip, though named so");
    if (!named && reader.is_gzip()) warn(reader.path(), " is gzip, though not named so");
  }

  void read_raw() {
    auto& raw = header_.raw;
    raw.resize(sizeof(nifti_2_header));
    constexpr Index first = sizeof(nifti_1_header);
    Index got = reader_->read_some(raw.data(), first);
    std::int32_t size = 0;
    if (got >= 4) std::memcpy(&size, raw.data(), 4);
    std::int32_t turned = size;
    nifti_swap_4bytes(1, &turned);
    header_.swapped = size != 348 && size != 540;
    if (header_.swapped && (got < 4 || (turned != 348 && turned != 540))) {
      if (got < 4) refuse("is truncated: it has ", got, " bytes");
      refuse("is no NIfTI file: its first number is ", size, ", neither 348 nor 540");
    }
    header_.version = (header_.swapped ? turned : size) == 540 ? 2 : 1;
    if (header_.version == 2)
      got += reader_->read_some(raw.data() + first, Index(sizeof(nifti_2_header)) - first);
    else
      raw.resize(sizeof(nifti_1_header));
    if (got < Index(raw.size()))
      refuse("is truncated: it has ", got, " bytes, its header needs ", raw.size());
    if (header_.swapped) NiftiHeader::swap_raw(raw, header_.version);
  }

  template <class Raw>
  void check_magic(const Raw& raw) {
    const auto is = [&](const char* kind) {
      return std::string(raw.magic, 4) == kind + std::string{char('0' + header_.version), '\0'};
    };
    const bool single = is("n+"), half = is("ni"), pair = header_.paths.is_pair();
    if constexpr (sizeof raw.magic == 8)
      if ((single || half) && std::memcmp(raw.magic + 4, "\r\n\032\n", 4) != 0)
        refuse("was damaged by a transfer in text mode: the line ends in its magic were changed");
    if (pair ? half : single) return;
    if (single) refuse("is half of a .hdr/.img pair by its name, but a single file by its header");
    const bool analyze = !half;
    if (analyze && header_.version == 2) refuse("has no NIfTI-2 magic");
    if (!options_.allow_analyze)
      refuse(analyze ? "has no NIfTI magic (an Analyze 7.5 file?)"
                     : "is the header of a .hdr/.img pair by its magic, but a single file by name",
             "; allow_analyze reads it without a promise");
    if (analyze) header_.version = 0;
    warn(analyze ? "is Analyze 7.5: its orientation is unknown" : "has the magic of a pair");
  }

  template <class Raw>
  void check_sizes(const Raw& raw) {
    auto& dim = header_.dim;
    std::string text;
    for (std::size_t k = 0; k < 8; ++k) {
      dim[k] = Index(raw.dim[k]);
      text += (k ? "," : "") + std::to_string(dim[k]);
    }
    if (dim[0] < 1 || dim[0] > 7) refuse("dim[0] is ", dim[0], ", not 1 to 7 (dim ", text, ")");
    header_.datatype = raw.datatype;
    int bytes = 0;
    nifti_datatype_sizes(header_.datatype, &bytes, &header_.swap_bytes);
    static constexpr int known[] = {2,   4,   8,   16,   32,   64,   128,
                                    256, 512, 768, 1024, 1280, 1792, 2304};
    if (std::find(std::begin(known), std::end(known), header_.datatype) == std::end(known))
      refuse("datatype ", header_.datatype, " (", nifti_datatype_string(header_.datatype),
             ") is not supported");
    header_.voxel_bytes = bytes;
    if (raw.bitpix != 8 * bytes)
      warn("bitpix is ", raw.bitpix, " where datatype ", header_.datatype_name(), " has ",
           8 * bytes, "; the datatype is believed");
    Index total = bytes;
    for (std::size_t k = 1; k < 8; ++k) {
      if (Index(k) > dim[0]) {
        dim[k] = 1;
        continue;
      }
      if (dim[k] < 1) refuse("dim[", k, "] is ", dim[k], ", not 1 or more (dim ", text, ")");
      if (dim[k] > options_.most_bytes / total)
        refuse("dim ", text, " declares more than ", options_.most_bytes,
               " bytes of voxels; most_bytes is the limit");
      total *= dim[k];
    }
    header_.intent = raw.intent_code;
  }

  template <class Raw>
  void check_offset(const Raw& raw) {
    const double offset = double(raw.vox_offset);
    const double least = header_.paths.is_pair() ? 0 : double(header_.raw.size()) + 4;
    if (!std::isfinite(offset) || offset != std::floor(offset) || offset < least ||
        offset > double(options_.most_bytes))
      refuse("vox_offset is ", offset, ", not a whole number of at least ", least);
    header_.voxel_offset = Index(offset);
  }

  template <class Raw>
  void check_scaling(const Raw& raw) {
    if (header_.version == 0) return;
    const double slope = double(raw.scl_slope), intercept = double(raw.scl_inter);
    if (!std::isfinite(slope) || slope == 0) return;
    header_.slope = slope;
    if (std::isfinite(intercept))
      header_.intercept = intercept;
    else
      warn("scl_inter is ", intercept, "; taken as 0");
  }

  template <class Raw>
  void check_geometry(const Raw& raw) {
    if (header_.version == 0) {
      header_.geometry = Geometry::of_spacing(step(raw, 1), step(raw, 2), step(raw, 3));
      return;
    }
    header_.qform_code = int(raw.qform_code);
    header_.sform_code = int(raw.sform_code);
    const double dx = step(raw, 1), dy = step(raw, 2), dz = step(raw, 3);
    Geometry chosen = Geometry::of_spacing(dx, dy, dz);
    if (header_.qform_code > 0) {
      const auto q = nifti_quatern_to_dmat44(raw.quatern_b, raw.quatern_c, raw.quatern_d,
                                             raw.qoffset_x, raw.qoffset_y, raw.qoffset_z, dx, dy,
                                             dz, double(raw.pixdim[0]) < 0 ? -1.0 : 1.0);
      for (int r = 0; r < 3; ++r)
        for (int c = 0; c < 4; ++c) header_.qform.affine(r, c) = q.m[r][c];
      chosen = header_.qform;
    }
    if (header_.sform_code > 0) {
      for (int c = 0; c < 4; ++c) {
        header_.sform.affine(0, c) = double(raw.srow_x[c]);
        header_.sform.affine(1, c) = double(raw.srow_y[c]);
        header_.sform.affine(2, c) = double(raw.srow_z[c]);
      }
      chosen = header_.sform;
    }
    const bool by_sform = header_.sform_code > 0, by_qform = !by_sform && header_.qform_code > 0;
    if (!chosen.is_valid())
      refuse(by_sform   ? "sform"
             : by_qform ? "qform"
                        : "pixdim",
             " is singular or not finite: no voxel has a place");
    if (by_sform && header_.qform_code > 0) {
      const double apart = header_.qform.distance(header_.sform, header_.extent());
      if (!(apart <= 1e-3))
        warn("qform and sform differ by ", apart, " mm at a corner; the sform is believed");
    }
    if (!by_sform && !by_qform) warn("has neither sform nor qform; its axes are taken as R, A, S");
    const int unit = int(raw.xyzt_units) & 7;
    header_.unit_mm = unit == NIFTI_UNITS_METER ? 1000 : unit == NIFTI_UNITS_MICRON ? 0.001 : 1;
    if (header_.unit_mm != 1)
      warn("is in ", unit == NIFTI_UNITS_METER ? "meters" : "micrometers", "; brought to mm");
    header_.geometry = chosen;
    for (int r = 0; r < 3; ++r)
      for (int c = 0; c < 4; ++c) header_.geometry.affine(r, c) *= header_.unit_mm;
  }
  // A voxel's size along an axis, as pixdim has it.
  template <class Raw>
  double step(const Raw& raw, int axis) {
    const double size = double(raw.pixdim[axis]);
    if (std::isfinite(size) && size > 0) return size;
    const double taken = std::isfinite(size) && size < 0 ? -size : 1.0;
    if (axis <= header_.dim[0]) warn("pixdim[", axis, "] is ", size, "; taken as ", taken);
    return taken;
  }

  void read_after() {
    const Index head = Index(header_.raw.size());
    const bool pair = header_.paths.is_pair();
    constexpr Index most = Index(64) << 20;
    if (!pair) check_end(*reader_);
    const Index count = !pair                ? header_.voxel_offset - head
                        : reader_->is_gzip() ? most
                                             : reader_->file_size() - head;
    if (count > most) refuse("has ", count, " bytes of extensions, more than ", most);
    if (pair) {  // all that is there
      unsigned char block[4096];
      for (Index got = 1; got > 0 && Index(header_.after.size()) <= count;) {
        got = reader_->read_some(block, sizeof block);
        header_.after.insert(header_.after.end(), block, block + got);
      }
      reader_->finish(0, header_.warnings);
    } else {
      header_.after.resize(std::size_t(count));
      reader_->read(header_.after.data(), count, "the part before the voxels");
    }
    read_extensions();
  }
  void read_extensions() {
    const auto& after = header_.after;
    if (after.size() < 4 || after[0] == 0) return;
    for (std::size_t at = 4; at + 8 <= after.size();) {
      std::int32_t size_and_code[2];
      std::memcpy(size_and_code, after.data() + at, 8);
      if (header_.swapped) nifti_swap_4bytes(2, size_and_code);
      const Index size = size_and_code[0];
      if (size < 8 || size > Index(after.size() - at)) {
        warn("the extension at byte ", header_.raw.size() + at, " declares ", size, " bytes where ",
             after.size() - at, " are left; extensions from there on are not read");
        return;
      }
      const auto* content = reinterpret_cast<const char*>(after.data()) + at + 8;
      header_.extensions.push_back({size_and_code[1], std::string(content, std::size_t(size - 8))});
      at += std::size_t(size);
    }
  }

  // Compares what is declared with the file before anything is allocated.
  void check_end(const FileReader& reader) const {
    const Index need = header_.voxel_offset + header_.data_bytes();
    if (need <= reader.most_bytes()) return;
    if (reader.is_gzip())
      fail<FileError>("nifti", reader.path(), ": is truncated: its header declares ", need,
                      " bytes, more than ", reader.file_size(), " bytes of gzip can hold");
    fail<FileError>("nifti", reader.path(), ": is truncated: its header declares ", need,
                    " bytes, the file has ", reader.file_size());
  }
  void find_voxels() {
    if (!header_.paths.is_pair()) return;
    reader_ = std::make_unique<FileReader>(header_.paths.voxels);
    note_packing(*reader_);
    check_end(*reader_);
    reader_->skip(header_.voxel_offset, "the part before the voxels");
  }

  NiftiOptions options_;
  NiftiHeader header_;
  std::unique_ptr<FileReader> reader_;
};

/// Reads and checks a NIfTI header (.nii, .nii.gz, .hdr/.img, versions 1 and 2, both byte orders)
/// against its file, without reading a voxel.
///
///   throws   FileError naming file, field, value and limit
inline NiftiHeader read_nifti_header(const std::string& path, const NiftiOptions& options = {}) {
  return std::move(NiftiHeaderReader(path, options).header());
}

}  // namespace segmed
