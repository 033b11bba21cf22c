// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <string>
#include <sys/resource.h>

#include <doctest/doctest.h>

#include "gz.hpp"
#include <segmed/image/gzip.hpp>

using namespace segmed;
using namespace segmed_test;

namespace {

Bytes pattern(std::size_t count) {
  Bytes bytes(count);
  for (std::size_t k = 0; k < count; ++k) bytes[k] = static_cast<unsigned char>(k * k / 7 + k);
  return bytes;
}

Bytes read_all(const std::string& path, Index count, std::vector<std::string>& warnings) {
  FileReader reader(path);
  Bytes bytes(static_cast<std::size_t>(count));
  reader.read(bytes.data(), count, "the test");
  reader.finish(0, warnings);
  return bytes;
}

}  // namespace

TEST_SUITE("image/gzip") {
  TEST_CASE("content comes back, packed or not, in one member or many") {
    const Folder folder;
    const Bytes whole = pattern(300000), first(whole.begin(), whole.begin() + 1234),
                rest(whole.begin() + 1234, whole.end());
    put_file(folder / "plain", whole);
    put_file(folder / "one", gz(whole));
    put_file(folder / "two", gz(first) + gz({}) + gz(rest));
    std::vector<std::string> warnings;
    for (const char* name : {"plain", "one", "two"})
      CHECK(read_all(folder / name, 300000, warnings) == whole);
    CHECK(warnings.empty());
  }
  TEST_CASE("members may break anywhere in the window") {
    const Folder folder;
    std::vector<std::string> warnings;
    for (std::size_t length = 65500; length < 65540; ++length) {
      // Stored blocks, so that the packed length follows the content's.
      Bytes noise = pattern(length);
      std::uint32_t state = 1;
      for (auto& byte : noise)
        byte = static_cast<unsigned char>((state = state * 1664525 + 1013904223) >> 24);
      put_file(folder / "straddle", gz(noise) + gz({1, 2, 3}));
      CHECK(read_all(folder / "straddle", Index(length) + 3, warnings) == noise + Bytes{1, 2, 3});
    }
    CHECK(warnings.empty());
  }
  TEST_CASE("bytes after the gzip data are counted in a warning") {
    const Folder folder;
    const Bytes whole = pattern(5000);
    std::vector<std::string> warnings;
    put_file(folder / "garbage", gz(whole) + Bytes(77, 'x'));
    CHECK(read_all(folder / "garbage", 5000, warnings) == whole);
    put_file(folder / "one_byte", gz(whole) + Bytes{0x1f});
    CHECK(read_all(folder / "one_byte", 5000, warnings) == whole);
    CHECK(warnings == std::vector<std::string>{"ignored 77 bytes after the gzip data",
                                               "ignored 1 bytes after the gzip data"});
  }
  TEST_CASE("a wrong checksum, a wrong length and a missing trailer are errors") {
    const Folder folder;
    const Bytes packed = gz(pattern(5000));
    const std::string path = folder / "bad";
    std::vector<std::string> warnings;
    const auto with_byte = [&](std::size_t from_end) {
      Bytes bad = packed;
      bad[bad.size() - from_end] ^= 0x40;
      return bad;
    };
    put_file(path, with_byte(6));
    CHECK_THROWS_WITH_AS(
        read_all(path, 5000, warnings),
        ("segmed: file: " + path + ": its gzip CRC is wrong: the content was damaged").c_str(),
        FileError);
    put_file(path, with_byte(2));
    CHECK_THROWS_WITH_AS(
        read_all(path, 5000, warnings),
        ("segmed: file: " + path + ": its gzip length (ISIZE) is wrong: content was lost").c_str(),
        FileError);
    for (std::size_t cut = 1; cut < packed.size() - 2; cut += 7) {
      put_file(path, Bytes(packed.begin(), packed.end() - std::ptrdiff_t(cut)));
      CHECK_THROWS_WITH_AS(read_all(path, 5000, warnings), doctest::Contains("is truncated"),
                           FileError);
    }
    put_file(path, with_byte(packed.size() / 2));
    CHECK_THROWS_AS(read_all(path, 5000, warnings), FileError);
  }
  TEST_CASE("content beyond the bound is not inflated to its end") {
    const Folder folder;
    const std::string path = folder / "bomb";
    put_file(path, gz(Bytes(std::size_t(64) << 20, 0)));
    FileReader reader(path);
    std::vector<std::string> warnings;
    CHECK_THROWS_WITH_AS(reader.finish(65536, warnings),
                         ("segmed: file: " + path +
                          ": inflates to more than 65536 bytes beyond "
                          "what its header declares")
                             .c_str(),
                         FileError);
    CHECK(reader.position() < 200000);
  }
  TEST_CASE("what is no readable file is named with the reason") {
    const Folder folder;
    CHECK_THROWS_WITH_AS(
        FileReader(folder / "none"),
        ("segmed: file: " + (folder / "none") + ": No such file or directory").c_str(), FileError);
    CHECK_THROWS_WITH_AS(FileReader(folder.path),
                         ("segmed: file: " + folder.path + ": is not a regular file").c_str(),
                         FileError);
    put_file(folder / "short", pattern(10));
    FileReader reader(folder / "short");
    char bytes[20];
    CHECK_THROWS_WITH_AS(
        reader.read(bytes, 20, "the test"),
        ("segmed: file: " + (folder / "short") +
         ": is truncated: the test ends at byte 20 but the content ends at byte 10")
            .c_str(),
        FileError);
  }
  TEST_CASE("a writer leaves the whole file or none") {
    const Folder folder;
    const Bytes old = pattern(100), fresh = pattern(200000);
    put_file(folder / "file", old);
    {
      FileWriter writer(folder / "file");
      writer.write(fresh.data(), 1000);
    }
    CHECK(get_file(folder / "file") == old);
    CHECK(folder.names().size() == 1);
    for (const char* name : {"file", "file.gz"}) {
      FileWriter writer(folder / name);
      writer.write(fresh.data(), Index(fresh.size()));
      writer.commit();
    }
    CHECK(get_file(folder / "file") == fresh);
    std::vector<std::string> warnings;
    CHECK(read_all(folder / "file.gz", Index(fresh.size()), warnings) == fresh);
    CHECK(get_file(folder / "file.gz").size() < fresh.size());
    CHECK(folder.names().size() == 2);
  }
  TEST_CASE("a full disk is an error that leaves the old file") {
    const Folder folder;
    const Bytes old = pattern(100);
    put_file(folder / "file", old);
    put_file(folder / "file.gz", old);
    rlimit before{};
    ::getrlimit(RLIMIT_FSIZE, &before);
    const auto signal_before = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit small{65536, before.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &small);
    std::string told[2];
    for (const int packed : {0, 1}) try {
        FileWriter writer(folder / (packed ? "file.gz" : "file"));
        std::uint32_t state = 1;
        Bytes noise(1 << 20);
        for (auto& byte : noise)
          byte = static_cast<unsigned char>((state = state * 1664525 + 1013904223) >> 24);
        writer.write(noise.data(), Index(noise.size()));
        writer.commit();
      } catch (const DiskError& error) {
        told[packed] = error.what();
      }
    ::setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, signal_before);
    for (const int packed : {0, 1}) {
      const std::string path = folder / (packed ? "file.gz" : "file");
      CHECK(told[packed] ==
            "segmed: write: " + path + ": 65536 bytes were written, then: File too large");
      CHECK(get_file(path) == old);
    }
    CHECK(folder.names().size() == 2);
    CHECK_THROWS_WITH_AS(FileWriter(folder / "no/folder"),
                         ("segmed: write: " + (folder / "no/folder") +
                          ": cannot be created: No such file or directory")
                             .c_str(),
                         FileError);
  }
}
