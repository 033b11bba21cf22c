// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include <zlib.h>

#include <segmed/core/config.hpp>
#include <segmed/core/file.hpp>

namespace segmed {

/// True when a path's end is `ending`, whatever its case.
inline bool has_ending(const std::string& path, const std::string& ending) {
  if (path.size() <= ending.size()) return false;
  for (std::size_t k = 0; k < ending.size(); ++k) {
    const char letter = path[path.size() - ending.size() + k];
    if ((letter >= 'A' && letter <= 'Z' ? char(letter - 'A' + 'a') : letter) != ending[k])
      return false;
  }
  return true;
}

/// Reads a file from the front, inflating it when it is gzip, whatever its name says. It never
/// holds more than a small window; how much to read is the caller's bound.
///
///   throws   FileError naming the file for what cannot be opened, read or inflated, for a wrong
///            checksum and for a file that ends too early
class FileReader {
 public:
  explicit FileReader(const std::string& path) : path_(path) {
    struct stat about {};
    if (::stat(path.c_str(), &about) != 0) fail<FileError>("file", path, ": ", reason());
    require<FileError>(S_ISREG(about.st_mode), "file", path, ": is not a regular file");
    size_ = Index(about.st_size);
    file_ = std::fopen(path.c_str(), "rb");
    require<FileError>(file_ != nullptr, "file", path, ": ", reason());
    fill();
    if (filled_ >= 2 && window_[0] == 0x1f && window_[1] == 0x8b) {
      // 31: gzip with its header and trailer, both checked by zlib.
      if (inflateInit2(&stream_, 31) != Z_OK) {
        std::fclose(file_);
        fail<FileError>("file", path, ": zlib has no memory left");
      }
      packed_ = true;
    }
  }
  ~FileReader() {
    if (packed_) inflateEnd(&stream_);
    std::fclose(file_);
  }
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  const std::string& path() const { return path_; }
  /// True when the content is gzip.
  bool is_gzip() const { return packed_; }
  /// Bytes on disk.
  Index file_size() const { return size_; }
  /// Content bytes read so far.
  Index position() const { return position_; }
  /// The most bytes of content that a file of this size can hold (deflate packs at most 1032:1).
  Index most_bytes() const { return packed_ ? size_ * 1032 + 1024 : size_; }

  /// Fills `to` with the next bytes and returns how many there were before the content's end.
  Index read_some(void* to, Index count) {
    Index done = 0;
    auto* out = static_cast<unsigned char*>(to);
    while (done < count) {
      const Index got =
          packed_ ? inflate_some(out + done, count - done) : copy_some(out + done, count - done);
      if (got == 0) break;
      done += got;
    }
    position_ += done;
    return done;
  }
  /// Fills `to` completely.
  void read(void* to, Index count, const char* what) {
    const Index got = read_some(to, count);
    require<FileError>(got == count, "file", path_, ": is truncated: ", what, " ends at byte ",
                       position_ - got + count, " but the content ends at byte ", position_);
  }
  /// Reads over `count` bytes.
  void skip(Index count, const char* what) {
    std::vector<unsigned char> scratch(std::size_t(std::min<Index>(count, 65536)));
    for (Index left = count; left > 0;) {
      const Index part = std::min(left, Index(scratch.size()));
      read(scratch.data(), part, what);
      left -= part;
    }
  }
  /// Goes to the end, so that the checksum is compared, and returns how many bytes were left over.
  /// More than `most` of them is an error in gzip content, which could go on without end.
  Index finish(Index most, std::vector<std::string>& warnings) {
    Index left = 0;
    if (packed_) {
      std::vector<unsigned char> scratch(16384);
      for (Index got = 1; got > 0; left += got) {
        got = read_some(scratch.data(), Index(scratch.size()));
        require<FileError>(left + got <= most, "file", path_, ": inflates to more than ", most,
                           " bytes beyond what its header declares");
      }
    } else {
      left = size_ - position_;
    }
    if (garbage_ > 0)
      warnings.push_back("ignored " + std::to_string(garbage_) + " bytes after the gzip data");
    return left;
  }

 private:
  static std::string reason() { return std::strerror(errno); }

  void fill() {
    filled_ = std::fread(window_, 1, sizeof window_, file_);
    used_ = 0;
    if (filled_ == 0 && std::ferror(file_)) fail<FileError>("file", path_, ": ", reason());
  }
  Index copy_some(unsigned char* to, Index count) {
    if (used_ == filled_) fill();
    const auto part = std::min(filled_ - used_, std::size_t(count));
    std::memcpy(to, window_ + used_, part);
    used_ += part;
    return Index(part);
  }
  Index inflate_some(unsigned char* to, Index count) {
    if (ended_) return 0;
    stream_.next_out = to;
    const auto room = uInt(std::min<Index>(count, 1 << 30));
    stream_.avail_out = room;
    while (stream_.avail_out == room) {
      if (used_ == filled_) fill();
      require<FileError>(filled_ > 0, "file", path_, ": is truncated: its gzip data ends before ",
                         "the checksum, after ", position_ + Index(room - stream_.avail_out),
                         " bytes of content");
      stream_.next_in = window_ + used_;
      stream_.avail_in = uInt(filled_ - used_);
      const int code = inflate(&stream_, Z_NO_FLUSH);
      used_ = filled_ - stream_.avail_in;
      if (code == Z_STREAM_END && !next_member()) break;
      if (code == Z_OK || code == Z_STREAM_END || code == Z_BUF_ERROR) continue;
      const std::string_view told = stream_.msg ? stream_.msg : "";
      if (told == "incorrect data check")
        fail<FileError>("file", path_, ": its gzip CRC is wrong: the content was damaged");
      if (told == "incorrect length check")
        fail<FileError>("file", path_, ": its gzip length (ISIZE) is wrong: content was lost");
      fail<FileError>("file", path_, ": its gzip data is damaged near byte ", stream_.total_in,
                      told.empty() ? "" : ": ", told);
    }
    return Index(room - stream_.avail_out);
  }
  // After a member: goes on with the next one, or ends and counts what is no gzip.
  bool next_member() {
    unsigned char head[2] = {0, 0};
    std::size_t have = 0;
    for (; have < 2; ++have) {
      if (used_ == filled_) fill();
      if (filled_ == 0) break;
      head[have] = window_[used_++];
    }
    ended_ = have < 2 || head[0] != 0x1f || head[1] != 0x8b;
    if (ended_) {
      const auto at = std::ftell(file_);
      garbage_ = size_ - Index(at) + Index(filled_ - used_) + Index(have);
      return false;
    }
    require<FileError>(++members_ < 1024, "file", path_, ": has more than 1024 gzip members");
    // The two bytes may straddle windows, so they are given to zlib by themselves.
    inflateReset(&stream_);
    stream_.next_in = head;
    stream_.avail_in = 2;
    inflate(&stream_, Z_NO_FLUSH);
    return true;
  }

  std::string path_;
  std::FILE* file_ = nullptr;
  Index size_ = 0, position_ = 0, garbage_ = 0;
  int members_ = 0;
  bool packed_ = false, ended_ = false;
  z_stream stream_{};
  unsigned char window_[65536];
  std::size_t filled_ = 0, used_ = 0;
};

/// Writes a file whole or not at all, packed when the name ends in .gz. Unless commit() was
/// reached, nothing remains.
///
///   throws   FileError naming the file and the reason, DiskError when the disk is full
class FileWriter {
 public:
  explicit FileWriter(const std::string& path, int level = 4)
      : file_(path), packed_(has_ending(path, ".gz")) {
    if (packed_ && deflateInit2(&stream_, level, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) != Z_OK)
      fail<FileError>("file", path, ": cannot be written: zlib has no memory left");
  }
  ~FileWriter() {
    if (packed_) deflateEnd(&stream_);
  }
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(const void* from, Index count) {
    if (!packed_) return file_.write(from, std::size_t(count));
    const auto* bytes = static_cast<const unsigned char*>(from);
    for (Index done = 0; done < count;) {
      const Index part = std::min<Index>(count - done, 1 << 30);
      deflate_some(bytes + done, uInt(part), Z_NO_FLUSH);
      done += part;
    }
  }
  /// Makes the file appear under its name.
  void commit() {
    if (packed_) deflate_some(nullptr, 0, Z_FINISH);
    file_.commit();
  }

 private:
  void deflate_some(const unsigned char* bytes, uInt count, int flush) {
    stream_.next_in = const_cast<unsigned char*>(bytes);
    stream_.avail_in = count;
    do {
      stream_.next_out = window_;
      stream_.avail_out = sizeof window_;
      deflate(&stream_, flush);
      file_.write(window_, sizeof window_ - stream_.avail_out);
    } while (stream_.avail_out == 0);
  }

  AtomicFile file_;
  bool packed_;
  z_stream stream_{};
  unsigned char window_[65536];
};

}  // namespace segmed
