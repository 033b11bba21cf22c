// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include <segmed/image/nifti.hpp>
#include <segmed/image/orient.hpp>
#include <segmed/image/resample.hpp>

namespace segmed {

/// What is changed beside the container; nothing unless asked for.
struct ConvertOptions {
  std::string orient;                            // "RAS" and the like
  std::optional<std::array<double, 3>> spacing;  // mm along the axes of the file that is written
  std::optional<Interpolation> interpolation;    // for spacing; without it labels (by intent or
                                                 // label table) are nearest, all else linear
  int level = 4;                                 // of compression, 1 to 9
};

/// A NIfTI file whose voxels are kept as they are stored, whatever their type.
class StoredNifti {
 public:
  explicit StoredNifti(const std::string& path) {
    NiftiHeaderReader file(path, {});
    voxels_.resize(std::size_t(file.header().data_bytes()));
    file.voxels().read(voxels_.data(), Index(voxels_.size()), "the voxels");
    finish_nifti(file.voxels(), file.header().warnings);
    header_ = std::move(file.header());
    notes_ = header_.warnings;
  }
  /// What was noticed on reading and what a change implies.
  const std::vector<std::string>& notes() const { return notes_; }

  /// Turns the axes; an exact permutation of the stored voxels.
  void orient(const std::string& code) {
    const AxisMap map = header_.geometry.turn_to(code);
    if (map.is_identity()) return;
    switch (header_.voxel_bytes) {
      case 1:
        return turn<1>(map);
      case 2:
        return turn<2>(map);
      case 3:
        return turn<3>(map);
      case 4:
        return turn<4>(map);
      case 8:
        return turn<8>(map);
      default:
        return turn<16>(map);
    }
  }

  /// Brings the voxels to another size in mm, in the type they are stored in.
  void resample(const std::array<double, 3>& spacing, std::optional<Interpolation> asked) {
    const VoxelGrid old{header_.extent(), header_.geometry};
    const VoxelGrid grid = grid_of_spacing(old, spacing);
    const Eigen::Vector3d before = old.geometry.spacing();
    std::array<double, 3> ratio{};
    bool same = true;
    for (std::size_t k = 0; k < 3; ++k) {
      ratio[k] = spacing[k] / before[Index(k)];
      same = same && std::abs(ratio[k] - 1) < 1e-6;
    }
    if (same) return;
    const bool labels = header_.intent == NIFTI_INTENT_LABEL || !label_names(header_).empty();
    const Interpolation how =
        asked.value_or(labels ? Interpolation::nearest : Interpolation::linear);
    require<ConfigError>(!labels || how == Interpolation::nearest, "convert", header_.paths.voxels,
                         ": holds labels, between which nothing lies; use nearest");
    const Index longest = std::max({grid.extent[0], grid.extent[1], grid.extent[2]});
    require<DataError>(header_.version == 2 || longest <= 32767, "convert", header_.paths.voxels,
                       ": an extent of ", longest, " voxels needs NIfTI-2; ask for larger voxels");
    with_nifti_type(header_.datatype, [&]<class S>(S) { resample_as<S>(old, grid, how); });
    update(grid.extent, header_.qform.scaled(ratio), header_.sform.scaled(ratio), grid.geometry);
    forget_slices("resampled");
  }

  void write(const std::string& path, int level) const {
    write_nifti_file(path, header_, level, [&](FileWriter& writer) {
      writer.write(voxels_.data(), Index(voxels_.size()));
    });
  }

 private:
  template <Index N>
  void turn(const AxisMap& map) {
    using Cell = std::array<unsigned char, std::size_t(N)>;
    Volume<Cell> brick = make_volume<Cell>(header_.extent());
    const Index bytes = brick.size() * N;
    for (Index v = 0; v < header_.volumes(); ++v) {
      unsigned char* at = voxels_.data() + v * bytes;
      std::memcpy(brick.voxels.data(), at, std::size_t(bytes));
      const Volume<Cell> there = turned(brick, map);
      std::memcpy(at, there.voxels.data(), std::size_t(bytes));
    }
    const Extent3 extent = header_.extent();
    const int slices = turn_axis_roles(map);
    if (slices > 0 && map.flip[std::size_t(slices - 1)]) forget_slices("reversed");
    update(map.extent(extent), header_.qform.turned(map, extent), header_.sform.turned(map, extent),
           header_.geometry.turned(map, extent));
  }

  template <class S>
  void resample_as(const VoxelGrid& old, const VoxelGrid& grid, Interpolation how) {
    const bool linear = how == Interpolation::linear;
    Volume<S> brick =
        make_volume<S>(old.extent, old.geometry, header_.voxel_bytes / Index(sizeof(S)));
    const std::size_t bytes = brick.voxels.size() * sizeof(S);
    std::vector<unsigned char> made;
    bool finite = true;
    for (Index v = 0; v < header_.volumes(); ++v) {
      std::memcpy(brick.voxels.data(), voxels_.data() + std::size_t(v) * bytes, bytes);
      swap(brick.voxels);
      for (const S value : brick.voxels) {
        if constexpr (std::is_integral_v<S> && sizeof(S) == 8) {
          constexpr S exact = S(1) << 53;
          require<DataError>(!linear || (value <= exact && value + exact >= 0), "convert",
                             header_.paths.voxels, ": holds ", value,
                             ", which has too many digits to interpolate; use nearest");
        } else if constexpr (std::is_floating_point_v<S>) {
          finite = finite && std::isfinite(value);
        }
      }
      Volume<S> there = resample_onto(brick, grid, how, S{}, Beyond::border);
      swap(there.voxels);
      const auto* out = reinterpret_cast<const unsigned char*>(there.voxels.data());
      made.insert(made.end(), out, out + there.voxels.size() * sizeof(S));
    }
    voxels_ = std::move(made);
    if (linear && std::is_integral_v<S>)
      notes_.push_back("interpolated linearly and rounded to " + header_.datatype_name() +
                       "; use nearest for labels");
    if (linear && !finite) notes_.push_back("voxels beside NaN or infinity took it over");
  }
  template <class S>
  void swap(std::vector<S>& values) const {
    if (header_.swapped && sizeof(S) > 1)
      nifti_swap_Nbytes(Index(values.size()), int(sizeof(S)), values.data());
  }

  // Which axis was frequency, phase and slice; returns the new slice axis, 1 to 3, or 0.
  int turn_axis_roles(const AxisMap& map) {
    int slices = 0;
    header_.edit([&](auto& raw) {
      int roles = 0;
      for (int shift = 0; shift < 6; shift += 2) {
        const int old = (raw.dim_info >> shift) & 3;
        for (int k = 0; k < 3; ++k)
          if (old > 0 && map.from[std::size_t(k)] == old - 1) roles |= (k + 1) << shift;
      }
      raw.dim_info = static_cast<char>(roles);
      slices = roles >> 4;
    });
    return slices;
  }
  // Slice times that would no longer be true are dropped.
  void forget_slices(const char* why) {
    header_.edit([&](auto& raw) {
      if (raw.slice_code != 0)
        notes_.push_back(std::string("dropped the slice times: the slices were ") + why);
      raw.slice_code = 0;
      raw.slice_start = 0;
      raw.slice_end = 0;
      raw.slice_duration = 0;
    });
  }
  // After the grid changed: extents and both forms.
  void update(const Extent3& extent, const Geometry& qform, const Geometry& sform,
              const Geometry& geometry) {
    const bool has_q = header_.qform_code > 0, has_s = header_.sform_code > 0;
    if (!has_q && !has_s) {
      header_.qform_code = header_.sform_code = NIFTI_XFORM_ALIGNED_ANAT;
      notes_.push_back("the file had no orientation; the one it was taken for was written");
    }
    Geometry plain = geometry;  // only where neither form was there
    for (int r = 0; r < 3; ++r)
      for (int c = 0; c < 4; ++c) plain.affine(r, c) /= header_.unit_mm;
    header_.sform = has_s ? sform : has_q ? qform : plain;
    header_.qform = has_q ? qform : header_.sform;
    if (!has_q) header_.qform_code = header_.sform_code;
    if (!has_s) header_.sform_code = header_.qform_code;
    header_.geometry = geometry;
    header_.dim[0] = std::max<Index>(3, header_.dim[0]);
    std::copy(extent.begin(), extent.end(), header_.dim.begin() + 1);
    header_.edit([&](auto& raw) {
      for (std::size_t k = 0; k < 8; ++k)
        raw.dim[k] = static_cast<std::remove_reference_t<decltype(raw.dim[0])>>(header_.dim[k]);
      set_forms(raw, header_.qform, header_.qform_code, header_.sform, header_.sform_code);
    });
    note_once(!header_.extensions.empty(), "copied extensions may describe the old grid");
    note_once(header_.intent >= NIFTI_INTENT_GENMATRIX && header_.intent <= NIFTI_INTENT_VECTOR,
              "the components of vectors and matrices were left as they were");
  }
  void note_once(bool holds, const char* text) {
    if (holds && std::find(notes_.begin(), notes_.end(), text) == notes_.end())
      notes_.emplace_back(text);
  }

  NiftiHeader header_;
  std::vector<unsigned char> voxels_;
  std::vector<std::string> notes_;
};

/// Writes a NIfTI file under another name. Without options only the container changes (.nii,
/// .nii.gz, .hdr/.img): header fields, extensions and every stored voxel stay, whatever their type
/// and byte order, 4-D and 5-D files too. `orient` permutes voxels exactly, then `spacing`
/// interpolates. Returns what there is to say about it.
///
///   throws   FileError for an unsound input or a file that cannot be written, ConfigError for
///            options that cannot be, DataError where a voxel could not keep its value
inline std::vector<std::string> convert_nifti(const std::string& from, const std::string& to,
                                              const ConvertOptions& options = {}) {
  StoredNifti image(from);
  if (!options.orient.empty()) image.orient(options.orient);
  if (options.spacing) image.resample(*options.spacing, options.interpolation);
  image.write(to, options.level);
  return image.notes();
}

}  // namespace segmed
