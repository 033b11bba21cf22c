// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <segmed/experiment/chart.hpp>

namespace segmed {

/// A value with its interval and the single values that it is the mean of.
struct DotRow {
  std::string label;
  int color = 1;
  double value = undefined, low = undefined, high = undefined;
  std::vector<double> dots = {};
  std::string note = {};  // a second, quiet line of the label
};

/// One row per value, its label on the left, around a line at 0 if there is one.
struct DotChart {
  std::string title, x_label;
  std::vector<DotRow> rows;
  bool zero_line = true;  // and 0 is always seen
  Index width = 460;
};

/// The values between which a chart's axis runs. Where one of four rows and more is far beyond all
/// others, those others fill the axis, and it becomes an arrow at the edge.
struct DotSpan {
  double low = INFINITY, high = -INFINITY;

  static DotSpan of(const DotChart& chart) {
    DotSpan all;
    std::vector<double> reaches;
    if (chart.zero_line) all.low = all.high = 0;
    for (const DotRow& row : chart.rows) {
      double reach = 0;
      each_of(row, [&](double v) { reach = std::max(reach, std::abs(v)); });
      reaches.push_back(reach);
    }
    std::sort(reaches.begin(), reaches.end());
    const double limit = chart.zero_line && reaches.size() > 3
                             ? 4 * reaches[(reaches.size() - 1) * 3 / 4]
                             : INFINITY;
    for (const DotRow& row : chart.rows)
      if (!(std::abs(row.value) > limit))
        each_of(row, [&](double v) {
          if (std::abs(v) <= limit)
            all.low = std::min(all.low, v), all.high = std::max(all.high, v);
        });
    return all;
  }

 private:
  template <class Visit>
  static void each_of(const DotRow& row, const Visit& visit) {
    for (const double v : row.dots)
      if (std::isfinite(v)) visit(v);
    for (const double v : {row.value, row.low, row.high})
      if (std::isfinite(v)) visit(v);
  }
};

/// The first letters of a text of UTF-8, and an ellipsis in place of the rest.
inline std::string shortened(const std::string& text, std::size_t letters) {
  std::string out;
  std::size_t seen = 0;
  for (std::size_t at = 0; at < text.size(); ++seen) {
    const std::size_t length = std::max<std::size_t>(1, utf8_length(text.substr(at)));
    if (seen + 1 >= letters && at + length < text.size()) return out + "\xE2\x80\xA6";
    out += text.substr(at, length), at += length;
  }
  return out;
}
/// How many letters of UTF-8.
inline std::size_t letters_of(const std::string& text) {
  return std::size_t(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

/// The chart as an SVG element: a bar from low to high, a large dot at the value, small ones below
/// for single values where there are several. What is beyond the axis is an arrow with its number.
inline std::string to_svg(const DotChart& chart) {
  const DotSpan span = DotSpan::of(chart);
  std::size_t longest = 0;
  bool noted = false;
  for (const DotRow& row : chart.rows) {
    longest = std::max({longest, letters_of(row.label), letters_of(row.note)});
    noted |= !row.note.empty();
  }
  const double width = double(chart.width), gap = 18;
  const double left = std::min(0.5 * width, SvgCanvas::letter * double(longest)) + gap;
  const double right = width - 22, row_height = noted ? 40 : 30;
  const auto most = std::size_t((left - gap) / SvgCanvas::letter + 1e-9);
  const double top = 4, bottom = top + row_height * double(chart.rows.size());
  const Axis across = Axis::over(span.low, span.high, right - left < 280 ? 3 : 5);
  SvgCanvas canvas(chart.width, Index(bottom) + 44, chart.title);
  const auto px = [&](double x) { return left + (right - left) * across.place(x); };
  for (Index i = 0; i < across.ticks(); ++i) {
    canvas.line(px(across.tick(i)), top, px(across.tick(i)), bottom, SvgCanvas::grid());
    canvas.words(px(across.tick(i)), bottom + 17, "middle", across.text(i));
  }
  if (chart.zero_line) canvas.line(px(0), top, px(0), bottom, SvgCanvas::ink(), 1.2);
  canvas.words(right, bottom + 35, "end", chart.x_label);
  for (std::size_t i = 0; i < chart.rows.size(); ++i) {
    const DotRow& row = chart.rows[i];
    const double y = top + row_height * (double(i) + 0.5), text = row.note.empty() ? y + 4 : y - 3;
    const std::string color = SvgCanvas::color(row.color);
    canvas.words(0, text, "start", shortened(row.label, most), "var(--ink,#1d1d1b)");
    if (!row.note.empty()) canvas.words(0, y + 12, "start", shortened(row.note, most));
    if (row.value > across.high || row.value < across.low) {
      const bool above = row.value > across.high;
      const std::string number = Axis::signed_text(fixed(row.value, 4, true));
      canvas.arrow(above ? right - 10 : left + 10, y, above ? 10 : -10, color);
      canvas.words(above ? right - 16 : left + 16, y + 4, above ? "end" : "start", number);
      continue;
    }
    if (std::isfinite(row.low) && std::isfinite(row.high))
      canvas.line(px(std::max(row.low, across.low)), y, px(std::min(row.high, across.high)), y,
                  color, 4);
    for (const double value : row.dots)
      if (row.dots.size() > 1 && value >= across.low && value <= across.high)
        canvas.dot(px(value), y + 10, 2.5, color, 0.55);
    if (std::isfinite(row.value)) canvas.dot(px(row.value), y, 6, color);
  }
  return canvas.finish();
}

}  // namespace segmed
