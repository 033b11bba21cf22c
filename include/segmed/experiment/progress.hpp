// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <mutex>
#include <string>
#include <string_view>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utility>

#include <segmed/core/config.hpp>

namespace segmed {

/// A duration as one says it: "48 s", "3 min 05 s", "2 h 10 min".
inline std::string duration_text(double seconds) {
  if (!(seconds >= 0) || seconds > 8.64e7) return "?";
  const auto padded = [](long long n) { return (n < 10 ? "0" : "") + std::to_string(n); };
  const long long whole = std::llround(seconds), minutes = whole / 60, hours = minutes / 60;
  if (whole < 60) return std::to_string(whole) + " s";
  if (minutes < 60) return std::to_string(minutes) + " min " + padded(whole % 60) + " s";
  return std::to_string(hours) + " h " + padded(minutes % 60) + " min";
}

/// The line that a terminal shows: label, bar, percentage, time left, note; cut to `columns`.
inline std::string progress_bar(std::string_view label, double fraction, double elapsed,
                                std::string_view note, Index columns) {
  fraction = std::clamp(fraction, 0.0, 1.0);
  constexpr int cells = 24;
  const int eighths = int(std::floor(fraction * cells * 8));
  constexpr const char* parts[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  std::string bar, line(label);
  for (int i = 0; i < cells; ++i) {
    const int filled = std::clamp(eighths - 8 * i, 0, 8);
    bar += filled == 8 ? "█" : parts[filled];
  }
  const std::string percent = std::to_string(int(std::floor(fraction * 100)));
  line += " ▕" + bar + "▏" + std::string(3 - percent.size(), ' ') + percent + " %";
  if (fraction > 0 && elapsed > 1)
    line += "  " + duration_text(elapsed / fraction - elapsed) + " left";
  if (!note.empty()) line.append("  ").append(note);
  Index shown = 0;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if ((static_cast<unsigned char>(line[i]) & 0xC0) == 0x80) continue;
    if (++shown > columns) return line.substr(0, i);
  }
  return line;
}

/// The line that a log holds.
inline std::string progress_line(std::string_view label, double fraction, double elapsed,
                                 std::string_view note) {
  fraction = std::clamp(fraction, 0.0, 1.0);
  std::string line(label);
  line += ": " + std::to_string(int(std::floor(fraction * 100))) + " %, " + duration_text(elapsed);
  if (fraction > 0) line += ", " + duration_text(elapsed / fraction - elapsed) + " left";
  if (!note.empty()) line.append(", ").append(note);
  return line;
}

/// Where progress is shown.
struct ProgressOptions {
  std::FILE* stream = stderr;
  int terminal = -1;  // 1: a bar that is drawn over; 0: plain lines; -1: as the stream is
};

/// Shows how far a long job is: a bar with the time left on a terminal; elsewhere plain lines, the
/// first after 5 s, then ever rarer, at least every 2 minutes. Safe from several threads.
class Progress {
 public:
  explicit Progress(std::string label, bool quiet = false, ProgressOptions options = {})
      : label_(std::move(label)),
        quiet_(quiet),
        stream_(options.stream),
        terminal_(options.terminal < 0 ? ::isatty(::fileno(options.stream)) == 1
                                       : options.terminal == 1) {}
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() { close(); }

  /// The job is `fraction` done (0 to 1); `note` says what else is worth knowing.
  void at(double fraction, std::string_view note = {}) {
    const std::lock_guard lock(mutex_);
    const double now = elapsed();
    if (quiet_ || now < next_) return;
    if (terminal_) {
      std::fprintf(stream_, "\r\x1b[K%s",
                   progress_bar(label_, fraction, now, note, columns()).c_str());
      next_ = now + 0.1;
      drawn_ = true;
    } else {
      std::fprintf(stream_, "%s\n", progress_line(label_, fraction, now, note).c_str());
      next_ = now + std::clamp(now, 5.0, 120.0);
    }
    std::fflush(stream_);
  }
  /// Leaves a line that is worth keeping.
  void say(std::string_view note) {
    const std::lock_guard lock(mutex_);
    if (quiet_) return;
    std::fprintf(stream_, terminal_ ? "\r\x1b[K%s: %s\n" : "%s: %s\n", label_.c_str(),
                 std::string(note).c_str());
    std::fflush(stream_);
  }
  /// The job is over: leaves one line, "label: note (3 min 05 s)".
  void done(std::string_view note = "done") {
    const std::lock_guard lock(mutex_);
    if (!quiet_ && !over_) {
      const std::string line =
          label_ + ": " + std::string(note) + " (" + duration_text(elapsed()) + ")";
      std::fprintf(stream_, terminal_ ? "\r\x1b[K%s\n" : "%s\n", line.c_str());
      std::fflush(stream_);
    }
    over_ = true;
  }

 private:
  double elapsed() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  Index columns() const {
    ::winsize size{};
    const bool known = ::ioctl(::fileno(stream_), TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    return known ? Index(size.ws_col) - 1 : 79;
  }
  void close() {
    if (drawn_ && !over_) std::fputc('\n', stream_);  // after an error: keep what was shown
  }

  std::string label_;
  bool quiet_, drawn_ = false, over_ = false;
  std::FILE* stream_;
  bool terminal_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double next_ = terminal_ ? 0.0 : 5.0;
  std::mutex mutex_;
};

}  // namespace segmed
