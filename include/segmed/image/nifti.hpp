// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <segmed/image/nifti_header.hpp>
#include <segmed/image/volume.hpp>

namespace segmed {

/// Names of label values, as a NIfTI file can carry them.
using LabelNames = std::vector<std::pair<int, std::string>>;

/// How a NIfTI file is written. Names end in .nii, .nii.gz, .hdr or .img (also .gz).
struct NiftiWriteOptions {
  int version = 0;          // 1 or 2; 0: 1 where the extents allow it
  bool big_endian = false;  // little otherwise
  LabelNames labels;        // written as a label table that TotalSegmentator's tools read
  std::string description = "segmed";
  int level = 4;  // of compression, 1 to 9
};

/// NIfTI's code for a voxel type.
template <class T>
constexpr int nifti_code() {
  if constexpr (std::is_same_v<T, float>) return NIFTI_TYPE_FLOAT32;
  if constexpr (std::is_same_v<T, double>) return NIFTI_TYPE_FLOAT64;
  if constexpr (std::is_integral_v<T>) {
    constexpr int coded[2][4] = {
        {NIFTI_TYPE_UINT8, NIFTI_TYPE_UINT16, NIFTI_TYPE_UINT32, NIFTI_TYPE_UINT64},
        {NIFTI_TYPE_INT8, NIFTI_TYPE_INT16, NIFTI_TYPE_INT32, NIFTI_TYPE_INT64}};
    constexpr int size = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
    return coded[std::is_signed_v<T>][size];
  }
}

/// Calls body(T{}) with the type of a stored number: colors are uint8, complex numbers float or
/// double, several of them to a voxel.
template <class Body>
decltype(auto) with_nifti_type(int code, const Body& body) {
  switch (code) {
    case NIFTI_TYPE_INT8:
      return body(std::int8_t{});
    case NIFTI_TYPE_INT16:
      return body(std::int16_t{});
    case NIFTI_TYPE_INT32:
      return body(std::int32_t{});
    case NIFTI_TYPE_INT64:
      return body(std::int64_t{});
    case NIFTI_TYPE_UINT16:
      return body(std::uint16_t{});
    case NIFTI_TYPE_UINT32:
      return body(std::uint32_t{});
    case NIFTI_TYPE_UINT64:
      return body(std::uint64_t{});
    case NIFTI_TYPE_FLOAT32:
    case NIFTI_TYPE_COMPLEX64:
      return body(float{});
    case NIFTI_TYPE_FLOAT64:
    case NIFTI_TYPE_COMPLEX128:
      return body(double{});
    default:
      return body(std::uint8_t{});
  }
}

/// Brings stored numbers to a volume's type, and counts what could not stay as it was.
template <class T>
class NiftiConversion {
 public:
  NiftiConversion(const NiftiHeader& header, const NiftiOptions& options)
      : header_(header), options_(options), scaled_(header.is_scaled()) {}

  /// The value of a stored number of the voxel with this place on the grid.
  template <class S>
  T operator()(S stored, Index place) {
    if (scaled_) return from_real(double(stored) * header_.slope + header_.intercept, place);
    if constexpr (std::is_same_v<S, T> && std::is_integral_v<T>) {
      return stored;
    } else if constexpr (std::is_integral_v<S> && std::is_integral_v<T>) {
      if (!std::in_range<T>(stored)) misfit(stored, place);
      return T(stored);
    } else if constexpr (std::is_integral_v<S>) {
      const T value = static_cast<T>(stored);
      if constexpr (std::numeric_limits<S>::digits > std::numeric_limits<T>::digits)
        rounded_ += static_cast<long double>(value) != static_cast<long double>(stored);
      return value;
    } else {
      return from_real(stored, place);
    }
  }
  /// Says in words what was changed, or is not finite.
  void report(std::vector<std::string>& warnings) const {
    if (not_finite_ > 0)
      warnings.push_back(std::to_string(not_finite_) + " voxels are NaN or infinite" +
                         (options_.non_finite == NonFinite::keep ? "" : ", replaced by 0"));
    if (rounded_ > 0)
      warnings.push_back(std::to_string(rounded_) + " voxels of " + header_.datatype_name() +
                         " have more digits than the type they are read into");
  }

 private:
  template <class R>
  T from_real(R value, Index place) {
    if (!std::isfinite(value)) {
      ++not_finite_;
      if (options_.non_finite == NonFinite::replace_by_zero) return T{};
      if (options_.non_finite == NonFinite::refuse || std::is_integral_v<T>) misfit(value, place);
    }
    if constexpr (std::is_integral_v<T>) {
      // The upper bound is exact in every floating type: a power of two.
      const R above = std::ldexp(R(1), std::numeric_limits<T>::digits);
      const R least = std::is_signed_v<T> ? -above : R(0);
      if (!(value >= least && value < above && value == std::trunc(value))) misfit(value, place);
    } else if constexpr (sizeof(R) > sizeof(T)) {
      if (std::isfinite(value) && std::abs(value) > double(std::numeric_limits<T>::max()))
        misfit(value, place);
    }
    return static_cast<T>(value);
  }
  template <class V>
  [[noreturn]] void misfit(V value, Index place) const {
    const Index x = place % header_.dim[1], y = place / header_.dim[1] % header_.dim[2],
                z = place / (header_.dim[1] * header_.dim[2]);
    if constexpr (std::is_integral_v<T>) {
      fail<DataError>("nifti", header_.paths.voxels, ": voxel ", x, ",", y, ",", z, " holds ",
                      +value, ", not a whole number from ", +std::numeric_limits<T>::min(), " to ",
                      +std::numeric_limits<T>::max());
    } else {
      fail<DataError>("nifti", header_.paths.voxels, ": voxel ", x, ",", y, ",", z, " holds ",
                      +value, std::isfinite(double(value)) ? ", too large for float" : "");
    }
  }

  const NiftiHeader& header_;
  const NiftiOptions& options_;
  bool scaled_;
  Index not_finite_ = 0, rounded_ = 0;
};

/// Checks what follows the voxels: leftovers are said, a damaged checksum is an error.
inline void finish_nifti(FileReader& reader, std::vector<std::string>& warnings) {
  const Index left = reader.finish(65536, warnings);
  if (left > 0) warnings.push_back("ignored " + std::to_string(left) + " bytes after the voxels");
}

/// Reads a NIfTI image: volumes behind the third axis become channels, scl_slope and scl_inter are
/// applied, NaN stays NaN.
///
///   shapes   dim[1..3] voxels, dim[4]*...*dim[7] channels
///   units    geometry in RAS+ mm
///   throws   FileError for what is no sound NIfTI file (see read_nifti_header), DataError for a
///            value that T cannot hold: no voxel is changed without a word in `warnings`
template <class T = float>
Volume<T> read_nifti(const std::string& path, const NiftiOptions& options = {},
                     std::vector<std::string>* warnings = nullptr) {
  NiftiHeaderReader file(path, options);
  const NiftiHeader& header = file.header();
  const bool color = header.datatype == NIFTI_TYPE_RGB24 || header.datatype == NIFTI_TYPE_RGBA32;
  require<DataError>(!color || options.colors_as_channels, "nifti", path, ": holds colors (",
                     header.datatype_name(), "); set colors_as_channels to read them");
  require<DataError>(
      header.datatype != NIFTI_TYPE_COMPLEX64 && header.datatype != NIFTI_TYPE_COMPLEX128, "nifti",
      path, ": holds complex numbers (", header.datatype_name(), "), which are no scan");
  const Index parts = color ? header.voxel_bytes : 1;
  Volume<T> volume = make_volume<T>(header.extent(), header.geometry, header.volumes() * parts);
  NiftiConversion<T> convert(header, options);
  with_nifti_type(header.datatype, [&]<class S>(S) {
    const Index size = Index(sizeof(S)), grid = volume.grid_size();
    std::vector<S> block(std::size_t(std::min<Index>(grid, 65536) * parts));
    for (Index v = 0; v < header.volumes(); ++v)
      for (Index place = 0; place < grid;) {
        const Index count = std::min<Index>(grid - place, 65536);
        file.voxels().read(block.data(), count * parts * size, "the voxels");
        if (header.swapped && size > 1) nifti_swap_Nbytes(count * parts, int(size), block.data());
        T* out = volume.voxels.data() + place * volume.channels + v * parts;
        for (Index k = 0; k < count; ++k, ++place, out += volume.channels)
          for (Index p = 0; p < parts; ++p)
            out[p] = convert(block[std::size_t(k * parts + p)], place);
      }
  });
  auto& said = file.header().warnings;
  finish_nifti(file.voxels(), said);
  convert.report(said);
  if (options.strict && !said.empty()) fail<FileError>("nifti", path, ": ", said.front());
  if (warnings) warnings->insert(warnings->end(), said.begin(), said.end());
  return volume;
}

/// Reads a label map: one volume of whole numbers from 0 to 255.
///
///   throws   as read_nifti; DataError naming the first value that is no label
inline Volume<std::uint8_t> read_labels(const std::string& path, const NiftiOptions& options = {},
                                        std::vector<std::string>* warnings = nullptr) {
  Volume<std::uint8_t> labels = read_nifti<std::uint8_t>(path, options, warnings);
  require<DataError>(labels.channels == 1, "nifti", path, ": has ", labels.channels,
                     " volumes; a label map has one");
  return labels;
}

/// The label table that a header carries, empty where it has none.
inline LabelNames label_names(const NiftiHeader& header) {
  LabelNames names;
  for (const NiftiExtension& extension : header.extensions) {
    const std::string& text = extension.content;
    for (std::size_t at = text.find("<Label "); at != std::string::npos;
         at = text.find("<Label ", at + 1)) {
      const std::size_t key = text.find("Key=\"", at), open = text.find('>', at);
      const std::size_t close = text.find("</Label>", at);
      if (close == std::string::npos || !(key < open && open < close)) break;
      std::string name = text.substr(open + 1, close - open - 1);
      const std::string head = "<![CDATA[", tail = "]]>";
      if (name.rfind(head, 0) == 0 && name.size() >= head.size() + tail.size())
        name = name.substr(head.size(), name.size() - head.size() - tail.size());
      names.emplace_back(std::atoi(text.c_str() + key + 5), name);
    }
  }
  return names;
}

/// The label table as the Caret XML that TotalSegmentator writes, padded as NIfTI wants it.
inline NiftiExtension label_extension(const LabelNames& names) {
  std::string text =
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?><CaretExtension><VolumeInformation Index=\"0\">"
      "<LabelTable>";
  for (const auto& [value, name] : names) {
    const auto shade = [v = value](int step) { return std::to_string((v * step % 97) / 96.0); };
    text += "<Label Key=\"" + std::to_string(value) + "\" Red=\"" + shade(37) + "\" Green=\"" +
            shade(59) + "\" Blue=\"" + shade(83) + "\" Alpha=\"1\"><![CDATA[" + name +
            "]]></Label>";
  }
  text +=
      "</LabelTable><StudyMetaDataLinkSet></StudyMetaDataLinkSet><VolumeType><![CDATA[Label]]>"
      "</VolumeType></VolumeInformation></CaretExtension>";
  text.resize((text.size() + 8 + 15) / 16 * 16 - 8, '\0');
  return {0, text};
}

/// Sets both forms of a raw header, each where its code is positive, and the voxel sizes with them.
template <class Raw>
void set_forms(Raw& raw, const Geometry& qform, int qform_code, const Geometry& sform,
               int sform_code) {
  const auto put = [](auto& field, auto value) {
    field = static_cast<std::remove_reference_t<decltype(field)>>(value);
  };
  put(raw.qform_code, qform_code);
  put(raw.sform_code, sform_code);
  nifti_dmat44 matrix{};
  for (int r = 0; r < 4; ++r)
    for (int c = 0; c < 4; ++c) matrix.m[r][c] = qform.affine(r, c);
  double b, c, d, x, y, z, dx, dy, dz, side;
  // For sheared axes this is the closest rotation; the sform holds the axes themselves.
  nifti_dmat44_to_quatern(matrix, &b, &c, &d, &x, &y, &z, &dx, &dy, &dz, &side);
  put(raw.quatern_b, b), put(raw.quatern_c, c), put(raw.quatern_d, d);
  put(raw.qoffset_x, x), put(raw.qoffset_y, y), put(raw.qoffset_z, z);
  put(raw.pixdim[0], side), put(raw.pixdim[1], dx), put(raw.pixdim[2], dy), put(raw.pixdim[3], dz);
  for (int k = 0; k < 4; ++k) {
    put(raw.srow_x[k], sform.affine(0, k));
    put(raw.srow_y[k], sform.affine(1, k));
    put(raw.srow_z[k], sform.affine(2, k));
  }
}

/// Writes a header and what `voxels(writer)` writes, in one file or as a pair, by the name.
template <class Voxels>
void write_nifti_file(const std::string& path, NiftiHeader header, int level,
                      const Voxels& voxels) {
  const std::string tail = has_ending(path, ".gz") ? path.substr(path.size() - 3) : "";
  const std::string name = path.substr(0, path.size() - tail.size());
  const bool pair = has_ending(name, ".hdr") || has_ending(name, ".img");
  require<ConfigError>(pair || has_ending(name, ".nii"), "nifti", path,
                       ": is no name for a NIfTI file; end it in .nii, .nii.gz, .hdr or .img");
  if (header.after.size() < 4) header.after.resize(4, 0);
  header.edit([&](auto& raw) {
    const Index offset = pair ? 0 : Index(header.raw.size() + header.after.size());
    raw.vox_offset = static_cast<decltype(raw.vox_offset)>(offset);
    raw.magic[1] = pair ? 'i' : '+';
  });
  const std::vector<unsigned char> head = header.encoded();
  const std::string base = name.substr(0, name.size() - 4);
  FileWriter first(pair ? base + ".hdr" + tail : path, level);
  first.write(head.data(), Index(head.size()));
  first.write(header.after.data(), Index(header.after.size()));
  if (!pair) {
    voxels(first);
    first.commit();
    return;
  }
  FileWriter second(base + ".img" + tail, level);
  voxels(second);
  second.commit();
  first.commit();
}

/// Writes a volume as NIfTI with qform and sform, in mm: the whole file or none.
///
///   throws   ConfigError for a name or version that cannot be, FileError naming path and reason
template <class T>
void write_nifti(const std::string& path, const Volume<T>& volume,
                 const NiftiWriteOptions& options = {}) {
  check_filled(volume, "nifti");
  require<DataError>(volume.geometry.is_valid(), "nifti", path, ": the affine has no inverse");
  const Index longest =
      std::max({volume.extent[0], volume.extent[1], volume.extent[2], volume.channels});
  NiftiHeader header;
  header.version = options.version != 0 ? options.version : longest > 32767 ? 2 : 1;
  require<ConfigError>(header.version == 2 || (header.version == 1 && longest <= 32767), "nifti",
                       path, ": version ", header.version, " does not hold an extent of ", longest);
  const std::uint16_t probe = 1;
  const bool little = *reinterpret_cast<const unsigned char*>(&probe) == 1;
  header.swapped = little == options.big_endian;
  header.raw.assign(header.version == 2 ? sizeof(nifti_2_header) : sizeof(nifti_1_header), 0);
  header.edit([&](auto& raw) {
    raw.sizeof_hdr = static_cast<int>(sizeof raw);
    std::memcpy(raw.magic, header.version == 2 ? "n+2\0\r\n\032\n" : "n+1", sizeof raw.magic);
    const Index dim[8] = {volume.channels > 1 ? 4 : 3,
                          volume.extent[0],
                          volume.extent[1],
                          volume.extent[2],
                          volume.channels,
                          1,
                          1,
                          1};
    for (int k = 0; k < 8; ++k) {
      raw.dim[k] = static_cast<std::remove_reference_t<decltype(raw.dim[0])>>(dim[k]);
      raw.pixdim[k] = k <= dim[0] ? 1 : 0;
    }
    raw.datatype = static_cast<short>(nifti_code<T>());
    raw.bitpix = static_cast<short>(8 * sizeof(T));
    raw.scl_slope = 1;
    raw.xyzt_units = NIFTI_UNITS_MM;
    if (!options.labels.empty()) raw.intent_code = NIFTI_INTENT_LABEL;
    std::memcpy(raw.descrip, options.description.data(),
                std::min<std::size_t>(options.description.size(), sizeof raw.descrip - 1));
    set_forms(raw, volume.geometry, NIFTI_XFORM_SCANNER_ANAT, volume.geometry,
              NIFTI_XFORM_SCANNER_ANAT);
  });
  header.after.assign(4, 0);
  if (!options.labels.empty()) {
    const NiftiExtension table = label_extension(options.labels);
    std::int32_t size_and_code[2] = {std::int32_t(table.content.size() + 8), table.code};
    if (header.swapped) nifti_swap_4bytes(2, size_and_code);
    header.after[0] = 1;
    const auto* bytes = reinterpret_cast<const unsigned char*>(size_and_code);
    header.after.insert(header.after.end(), bytes, bytes + 8);
    header.after.insert(header.after.end(), table.content.begin(), table.content.end());
  }
  write_nifti_file(path, header, options.level, [&](FileWriter& writer) {
    std::vector<T> block(65536);
    const Index grid = volume.grid_size();
    for (Index c = 0; c < volume.channels; ++c)
      for (Index place = 0; place < grid;) {
        const Index count = std::min<Index>(grid - place, Index(block.size()));
        const T* in = volume.voxels.data() + place * volume.channels + c;
        for (Index k = 0; k < count; ++k) block[std::size_t(k)] = in[k * volume.channels];
        if (header.swapped && sizeof(T) > 1) nifti_swap_Nbytes(count, int(sizeof(T)), block.data());
        writer.write(block.data(), count * Index(sizeof(T)));
        place += count;
      }
  });
}

}  // namespace segmed
