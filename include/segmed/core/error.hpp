// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <sstream>
#include <stdexcept>

namespace segmed {

/// Everything segmed throws: "segmed: <who>: <the fact with its numbers>[; <what to do>]".
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// Extents, channels or counts that do not fit each other.
struct ShapeError : Error {
  using Error::Error;
};
/// A file that cannot be read or written.
struct FileError : Error {
  using Error::Error;
};
/// A file that cannot be written because the disk is full or sets a limit.
struct DiskError : FileError {
  using FileError::FileError;
};
/// Data that was read well but means something else than was asked for.
struct DataError : Error {
  using Error::Error;
};
/// A device that is absent or failed.
struct DeviceError : Error {
  using Error::Error;
};
/// An option out of its range, or options that exclude each other.
struct ConfigError : Error {
  using Error::Error;
};

/// Throws E("segmed: who: parts...").
template <class E = ShapeError, class... Parts>
[[noreturn]] void fail(const char* who, const Parts&... parts) {
  std::ostringstream text;
  text << "segmed: " << who << ": ";
  (text << ... << parts);
  throw E(text.str());
}

/// Throws E("segmed: who: parts...") unless `ok`.
template <class E = ShapeError, class... Parts>
void require(bool ok, const char* who, const Parts&... parts) {
  if (!ok) fail<E>(who, parts...);
}

}  // namespace segmed
