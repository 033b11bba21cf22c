// SPDX-License-Identifier: Apache-2.0
// Files for the reader tests: a folder that vanishes, bytes in and out, headers of any kind, and
// nibabel or scipy as oracle.
#pragma once
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <string>
#include <unistd.h>
#include <vector>

namespace segmed_test {

using Bytes = std::vector<unsigned char>;

/// Removes itself with all files in it.
struct Folder {
  std::string path;
  Folder() {
    char name[] = "/tmp/segmed_image_XXXXXX";
    const char* made = ::mkdtemp(name);
    path = made ? made : "";
  }
  ~Folder() {
    for (const std::string& name : names()) std::remove((path + "/" + name).c_str());
    ::rmdir(path.c_str());
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string operator/(const std::string& name) const { return path + "/" + name; }
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    if (DIR* folder = ::opendir(path.c_str())) {
      while (const dirent* entry = ::readdir(folder))
        if (entry->d_name[0] != '.') found.emplace_back(entry->d_name);
      ::closedir(folder);
    }
    return found;
  }
};

inline void put_file(const std::string& path, const Bytes& bytes) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (!file) return;
  if (!bytes.empty()) std::fwrite(bytes.data(), 1, bytes.size(), file);
  std::fclose(file);
}

inline Bytes get_file(const std::string& path) {
  Bytes bytes;
  if (std::FILE* file = std::fopen(path.c_str(), "rb")) {
    unsigned char block[65536];
    for (std::size_t got = 0; (got = std::fread(block, 1, sizeof block, file)) > 0;)
      bytes.insert(bytes.end(), block, block + got);
    std::fclose(file);
  }
  return bytes;
}

inline Bytes operator+(Bytes left, const Bytes& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

/// The bytes of numbers, reversed one by one where asked.
template <class T>
Bytes bytes_of(const std::vector<T>& values, bool swapped = false) {
  Bytes bytes(values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  for (std::size_t at = 0; swapped && at < bytes.size(); at += sizeof(T))
    for (std::size_t k = 0; k < sizeof(T) / 2; ++k)
      std::swap(bytes[at + k], bytes[at + sizeof(T) - 1 - k]);
  return bytes;
}

/// A NIfTI-1 header written field by field, so that any field can be wrong.
struct RawHeader {
  std::array<std::int16_t, 8> dim{3, 4, 4, 4, 1, 1, 1, 1};
  std::int16_t datatype = 16, bitpix = 32;
  std::array<float, 8> pixdim{1, 1, 1, 1, 0, 0, 0, 0};
  float vox_offset = 352, slope = 1, inter = 0;
  char units = 2;
  std::int16_t qform = 1, sform = 1;
  std::array<float, 6> quatern{};
  std::array<float, 12> srow{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
  std::string magic = std::string("n+1\0", 4);
  std::int32_t size = 348;
  std::int16_t intent = 0;
  Bytes after{0, 0, 0, 0};
  bool swapped = false;

  Bytes bytes() const {
    Bytes raw(348, 0);
    const auto put = [&](std::size_t at, auto value) {
      const Bytes field = bytes_of(std::vector{value}, swapped);
      std::copy(field.begin(), field.end(), raw.begin() + std::ptrdiff_t(at));
    };
    put(0, size);
    for (std::size_t k = 0; k < 8; ++k) put(40 + 2 * k, dim[k]);
    put(68, intent);
    put(70, datatype);
    put(72, bitpix);
    for (std::size_t k = 0; k < 8; ++k) put(76 + 4 * k, pixdim[k]);
    put(108, vox_offset);
    put(112, slope);
    put(116, inter);
    put(123, units);
    std::memcpy(raw.data() + 148, "made by a test", 14);
    put(252, qform);
    put(254, sform);
    for (std::size_t k = 0; k < 6; ++k) put(256 + 4 * k, quatern[k]);
    for (std::size_t k = 0; k < 12; ++k) put(280 + 4 * k, srow[k]);
    std::memcpy(raw.data() + 344, magic.data(), 4);
    return raw + after;
  }
};

/// 64 floats, 0 to 63: the voxels of RawHeader's default.
inline Bytes ramp_voxels(bool swapped = false) {
  std::vector<float> ramp(64);
  for (std::size_t k = 0; k < ramp.size(); ++k) ramp[k] = float(k);
  return bytes_of(ramp, swapped);
}

/// Runs a Python program; false when it fails, as it does where a module is missing.
inline bool python(const Folder& folder, const std::string& program,
                   const std::string& arguments = "") {
  const std::string script = folder / "oracle.py";
  put_file(script, Bytes(program.begin(), program.end()));
  const std::string command =
      "/usr/bin/python3 " + script + " " + arguments + " > " + (folder / "oracle.txt") + " 2>&1";
  return std::system(command.c_str()) == 0;
}

/// True when Debian's Python has a module.
inline bool python_has(const Folder& folder, const std::string& module) {
  return python(folder, "import " + module + "\n");
}

inline std::vector<double> get_doubles(const std::string& path) {
  const Bytes bytes = get_file(path);
  std::vector<double> values(bytes.size() / sizeof(double));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(double));
  return values;
}

/// The folder with real data, or nothing.
inline std::string data_folder() {
  const char* folder = std::getenv("SEGMED_DATA");
  return folder ? folder : "";
}

}  // namespace segmed_test
