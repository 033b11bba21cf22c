// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

#include <segmed/core/file.hpp>

using namespace segmed;
namespace fs = std::filesystem;

TEST_SUITE("core/file") {
  TEST_CASE("two writers of one file do not meet, and a killed one's rest is swept") {
    const fs::path folder =
        fs::temp_directory_path() / ("segmed_file_" + std::to_string(::getpid()));
    fs::remove_all(folder);
    fs::create_directories(folder);
    const std::string path = folder / "a";
    {
      AtomicFile first(path), second(path);
      first.write("first");
      second.write("second");
      CHECK_FALSE(fs::exists(path));
      first.commit();
      second.commit();
    }
    CHECK(read_bytes(path) == "second");
    for (const char* rest : {"a.tmp.123", "a.tmp.123.4"}) std::ofstream(folder / rest) << "half";
    std::ofstream(folder / "a.tmp.notes") << "the user's own";
    fs::create_directories(folder / "runs" / "one");
    std::ofstream(folder / "runs" / "one" / "last.safetensors.tmp.7.0") << "half";
    CHECK(remove_unfinished(folder) == 3);
    CHECK(fs::exists(folder / "a.tmp.notes"));
    CHECK(remove_unfinished(folder / "nowhere") == 0);
    fs::remove_all(folder);
  }
  TEST_CASE("a folder is no file, and neither is nothing") {
    CHECK_THROWS_AS(read_bytes("/"), FileError);
    CHECK_THROWS_AS(read_bytes("/nowhere/at/all"), FileError);
    CHECK_THROWS_AS(AtomicFile("/nowhere/at/all"), FileError);
  }
}
