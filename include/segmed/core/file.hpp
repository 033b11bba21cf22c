// SPDX-License-Identifier: Apache-2.0
// Files on disk, read and written whole.
#pragma once
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>

namespace segmed {

/// A file that comes into being as a whole or not at all: it is written beside its place under a
/// temporary name, synced and renamed by `commit`. Until then, and after any failure, the file that
/// was there stays as it was.
///
///   throws   FileError with the path, the bytes and the system's reason; DiskError when space or a
///   limit of the disk is the reason
class AtomicFile {
 public:
  explicit AtomicFile(std::string path)
      : path_(std::move(path)),
        temporary_(path_ + ".tmp." + std::to_string(::getpid()) + '.' + std::to_string(count())),
        file_(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
    check(file_ >= 0, "cannot be created");
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() { discard(); }

  void write(const void* from, std::size_t size) {
    const char* at = static_cast<const char*>(from);
    while (size > 0) {
      const ssize_t wrote = ::write(file_, at, size);
      if (wrote < 0 && errno == EINTR) continue;
      check(wrote > 0, "bytes were written, then", written_, ' ');
      at += wrote, size -= std::size_t(wrote), written_ += std::size_t(wrote);
    }
  }
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit() {
    check(::fsync(file_) == 0, "bytes could not be synced", written_, ' ');
    const int file = std::exchange(file_, -1);
    check(::close(file) == 0, "bytes could not be closed", written_, ' ');
    check(::rename(temporary_.c_str(), path_.c_str()) == 0, "cannot be replaced");
    committed_ = true;
    // The new name is on the disk only when its folder is.
    const auto slash = path_.rfind('/');
    const std::string folder = slash == path_.npos ? "." : path_.substr(0, slash + 1);
    const int place = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (place < 0) return;
    ::fsync(place);
    ::close(place);
  }

 private:
  /// Two writers of one process never share a temporary name.
  static unsigned count() {
    static std::atomic<unsigned> made{0};
    return made++;
  }
  template <class... Parts>
  void check(bool ok, const char* what, const Parts&... before) {
    if (ok) return;
    const int error = errno;
    discard();
    if (error == ENOSPC || error == EDQUOT || error == EFBIG)
      fail<DiskError>("write", path_, ": ", before..., what, ": ", std::strerror(error));
    fail<FileError>("write", path_, ": ", before..., what, ": ", std::strerror(error));
  }
  void discard() noexcept {
    if (file_ >= 0) ::close(std::exchange(file_, -1));
    if (!committed_) ::unlink(temporary_.c_str());
  }

  std::string path_, temporary_;
  int file_;
  std::size_t written_ = 0;
  bool committed_ = false;
};

/// Removes what killed writers left in a folder, and in those below, that nobody else writes to:
/// temporary files of AtomicFile. Returns how many there were.
inline Index remove_unfinished(const std::string& folder) {
  Index removed = 0;
  std::error_code end_of_list, ignored_error;
  std::vector<std::filesystem::path> all;
  // By hand, since the loop over a range would throw for a folder that vanishes meanwhile.
  using Below = std::filesystem::recursive_directory_iterator;
  const auto unreadable = std::filesystem::directory_options::skip_permission_denied;
  for (Below at(folder, unreadable, end_of_list); !end_of_list && at != Below();
       at.increment(end_of_list))
    all.push_back(at->path());
  for (const auto& path : all) {
    const std::string name = path.filename().string();
    const auto at = name.rfind(".tmp.");
    if (at == name.npos || name.find_first_not_of("0123456789.", at + 5) != name.npos) continue;
    removed += std::filesystem::remove(path, ignored_error) ? 1 : 0;
  }
  return removed;
}

/// All bytes of a file.
///
///   throws   FileError when it cannot be opened or read, or is no regular file
inline std::string read_bytes(const std::string& path) {
  struct Handle {
    int file;
    ~Handle() {
      if (file >= 0) ::close(file);
    }
  } handle{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  const auto check = [&](bool ok) {
    require<FileError>(ok, "read", path, ": ", std::strerror(errno));
  };
  struct ::stat about = {};
  check(handle.file >= 0 && ::fstat(handle.file, &about) == 0);
  require<FileError>(S_ISREG(about.st_mode), "read", path, ": is no file");
  std::string bytes(std::size_t(about.st_size), '\0');
  for (std::size_t at = 0; at < bytes.size();) {
    const ssize_t got = ::read(handle.file, bytes.data() + at, bytes.size() - at);
    if (got < 0 && errno == EINTR) continue;
    check(got >= 0);
    require<FileError>(got > 0, "read", path, ": ends after ", at, " of ", bytes.size(), " bytes");
    at += std::size_t(got);
  }
  return bytes;
}

}  // namespace segmed
