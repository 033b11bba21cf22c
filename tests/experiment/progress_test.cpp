// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <string>

#include <doctest/doctest.h>

#include <segmed/experiment/progress.hpp>

using namespace segmed;

namespace {

std::string shown(int terminal, bool quiet, void (*job)(Progress&)) {
  std::FILE* file = std::tmpfile();
  REQUIRE(file != nullptr);
  {
    Progress progress("train", quiet, {file, terminal});
    job(progress);
  }
  std::string text(std::size_t(std::ftell(file)), '\0');
  std::rewind(file);
  CHECK(std::fread(text.data(), 1, text.size(), file) == text.size());
  std::fclose(file);
  return text;
}

}  // namespace

TEST_SUITE("experiment/progress") {
  TEST_CASE("durations read as one says them") {
    CHECK(duration_text(0) == "0 s");
    CHECK(duration_text(59.4) == "59 s");
    CHECK(duration_text(59.6) == "1 min 00 s");
    CHECK(duration_text(185) == "3 min 05 s");
    CHECK(duration_text(7800) == "2 h 10 min");
    CHECK(duration_text(-1) == "?");
    CHECK(duration_text(1e300) == "?");
  }
  TEST_CASE("the time left follows from the time spent") {
    CHECK(progress_line("M_0", 0.25, 60, "loss 0.3") ==
          "M_0: 25 %, 1 min 00 s, 3 min 00 s left, loss 0.3");
    CHECK(progress_line("M_0", 0, 60, "") == "M_0: 0 %, 1 min 00 s");
    CHECK(progress_line("M_0", 7, 60, "") == "M_0: 100 %, 1 min 00 s, 0 s left");
    CHECK(progress_bar("M_0", 0.5, 10, "x", 200) ==
          "M_0 ▕████████████            ▏ 50 %  10 s left  x");
    CHECK(progress_bar("M_0", 1, 10, "", 200) == "M_0 ▕████████████████████████▏100 %  0 s left");
  }
  TEST_CASE("what is worth keeping has a line of its own") {
    const auto job = [](Progress& progress) { progress.say("mind the gap"); };
    CHECK(shown(0, false, job) == "train: mind the gap\n");
    CHECK(shown(1, false, job) == "\r\x1b[Ktrain: mind the gap\n");
    CHECK(shown(0, true, job).empty());
  }
  TEST_CASE("a narrow terminal gets a line that fits") {
    CHECK(progress_bar("M_0", 0.5, 10, "a long note", 12) == "M_0 ▕███████");
    CHECK(progress_bar("M_0", 0.5, 10, "", 0).empty());
  }
  TEST_CASE("a terminal gets one line that is drawn over, a file gets plain ones") {
    const auto job = [](Progress& progress) {
      for (int i = 0; i <= 1000; ++i) progress.at(i / 1000.0, "loss");
      progress.done();
    };
    const std::string bar = shown(1, false, job);
    CHECK(bar.find("\r\x1b[Ktrain ▕") == 0);
    CHECK(bar.find("train: done (0 s)\n") != std::string::npos);
    CHECK(shown(0, false, job) == "train: done (0 s)\n");
    CHECK(shown(1, true, job).empty());
    CHECK(shown(0, true, job).empty());
  }
  TEST_CASE("a job that fails leaves its last line") {
    const std::string text = shown(1, false, [](Progress& progress) { progress.at(0.5); });
    CHECK(text.back() == '\n');
  }
}
