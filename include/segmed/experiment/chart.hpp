// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include <segmed/core/config.hpp>
#include <segmed/core/json_text.hpp>
#include <segmed/experiment/statistics.hpp>

namespace segmed {

/// Text as HTML and SVG hold it; bytes that are no UTF-8 become U+FFFD.
inline std::string escaped(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const char first = text[0];
    if (length == 0)
      out += "\xEF\xBF\xBD";
    else if (first == '&')
      out += "&amp;";
    else if (first == '<')
      out += "&lt;";
    else if (first == '>')
      out += "&gt;";
    else if (first == '"')
      out += "&quot;";
    else if (first == '\'')
      out += "&#39;";
    else if (length > 1 || static_cast<unsigned char>(first) >= 0x20 || first == '\n')
      out += text.substr(0, length);
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return out;
}

/// Escaped text with the symbols of the comparison set as HTML sets them: D_0, D_1, D_val, M_0,
/// M_1.
inline std::string typeset(std::string_view text) {
  std::string out = escaped(text);
  for (const std::string plain : {"D_val", "D_0", "D_1", "M_0", "M_1"}) {
    const std::string set = plain.substr(0, 1) + "<sub>" + plain.substr(2) + "</sub>";
    for (auto at = out.find(plain); at != out.npos; at = out.find(plain, at + set.size()))
      out.replace(at, plain.size(), set);
  }
  return out;
}

/// A line of a chart; NaN leaves a gap. `low` and `high` draw a band around it, where given.
struct Series {
  std::string name;  // equal names share a place in the legend
  int color = 1;     // 1 to 6; 0 is gray
  std::vector<double> x, y, low = {}, high = {};
  bool dots = false;
};

/// Lines over axes.
struct LineChart {
  std::string title, x_label, y_label;
  std::vector<Series> series;
  bool zero_line = false;  // y = 0 is drawn, and always seen
  Index width = 460, height = 270;
  bool logarithmic = false;  // the y axis, where all values are above zero
};

/// An axis: the values at its ends, and where its ticks stand: at equal steps, or at 1, 2, 5, 10,
/// 20 and so on of a logarithmic one.
struct Axis {
  double low = 0, high = 1, step = 0.2;
  bool logarithmic = false;  // `step` ticks of a decade then: 1 or 3

  /// About `wanted` round ticks that hold all values between them.
  static Axis over(double low, double high, int wanted) {
    if (!(low <= high)) return {};
    if (low == high) low -= std::max(1e-3, std::abs(low) * 0.1), high += high - low;
    const double rough = (high - low) / wanted, power = std::pow(10, std::floor(std::log10(rough)));
    const double lead = rough / power;
    Axis axis;
    axis.step = power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
    axis.low = axis.step * std::floor(low / axis.step + 1e-9);
    axis.high = axis.step * std::ceil(high / axis.step - 1e-9);
    return axis;
  }
  /// A logarithmic axis that holds all values, which are above zero, between its ticks.
  static Axis decades(double low, double high) {
    Axis axis{1, 1, high / low < 1e3 ? 3.0 : 1.0, true};
    const auto end = [&](double value, bool above) {
      Index k = Index(std::floor(std::log10(value) * axis.step)) - 1;
      while (axis.mark(k + 1) <= value * (1 + 1e-9)) ++k;
      return axis.mark(above && axis.mark(k) < value * (1 - 1e-9) ? k + 1 : k);
    };
    const double first = end(low, false), last = end(high, true);
    axis.low = first, axis.high = last > first ? last : first * 10;
    return axis;
  }
  Index ticks() const {
    if (!logarithmic) return Index(std::lround((high - low) / step)) + 1;
    Index n = 1;
    while (tick(n - 1) < high * (1 - 1e-9)) ++n;
    return n;
  }
  double tick(Index i) const {
    return logarithmic ? mark(Index(std::lround(std::log10(low) * step)) + i)
                       : low + double(i) * step;
  }
  /// A tick's text, with as many decimals as the step has.
  std::string text(Index i) const {
    const double least = logarithmic ? tick(i) : step;
    const int decimals = std::clamp(-int(std::floor(std::log10(least) + 1e-9)), 0, 9);
    const double value = std::abs(tick(i)) < least / 1e6 ? 0 : tick(i);
    return signed_text(fixed(value, decimals));
  }
  /// A number's text with a true minus sign.
  static std::string signed_text(const std::string& digits) {
    return digits[0] == '-' ? "\xE2\x88\x92" + digits.substr(1) : digits;
  }
  /// 0 at the low end, 1 at the high one.
  double place(double value) const {
    return logarithmic ? std::log(value / low) / std::log(high / low)
                       : (value - low) / (high - low);
  }

 private:
  // The k-th of ..., 0.5, 1, 2, 5, 10, ... or of the powers of ten; the 0-th is 1.
  double mark(Index k) const {
    const Index each = Index(step), decade = k >= 0 ? k / each : -((-k + each - 1) / each);
    constexpr double lead[] = {1, 2, 5};
    return lead[k - decade * each] * std::pow(10.0, double(decade));
  }
};

/// Collects the elements of an SVG picture. Colors are variables that the page around it may set,
/// with a value of their own where none does.
class SvgCanvas {
 public:
  SvgCanvas(Index width, Index height, const std::string& title)
      : text_("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + std::to_string(width) +
              " " + std::to_string(height) +
              "\" role=\"img\" font-family=\"system-ui, sans-serif\" "
              "font-size=\"12\"><title>" +
              escaped(title) + "</title>\n") {}

  static constexpr double letter = 6.8;  // about the mean width of one
  static std::string number(double value) { return fixed(value, 1); }
  static std::string color(int index) {
    constexpr std::array<const char*, 7> own{"#85837c", "#2a78d6", "#c2410c", "#0f8a5f",
                                             "#8b5cf6", "#b7791f", "#d6336c"};
    const int k = index <= 0 ? 0 : (index - 1) % 6 + 1;
    return "var(--series-" + std::to_string(k) + "," + own[std::size_t(k)] + ")";
  }
  static std::string ink() { return "var(--muted,#5f5e5a)"; }
  static std::string grid() { return "var(--rule,#dddbd5)"; }

  void line(double x1, double y1, double x2, double y2, const std::string& stroke,
            double width = 1) {
    text_ += "<line x1=\"" + number(x1) + "\" y1=\"" + number(y1) + "\" x2=\"" + number(x2) +
             "\" y2=\"" + number(y2) + "\" style=\"stroke:" + stroke + "\" stroke-width=\"" +
             number(width) + "\" stroke-linecap=\"round\"/>\n";
  }
  void words(double x, double y, const std::string& anchor, const std::string& text,
             const std::string& fill = ink()) {
    text_ += "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" text-anchor=\"" + anchor +
             "\" style=\"fill:" + fill +
             ";paint-order:stroke;stroke:var(--card,#fff);stroke-width:4px\">" + escaped(text) +
             "</text>\n";
  }
  void dot(double x, double y, double radius, const std::string& fill, double opacity = 1) {
    text_ += "<circle cx=\"" + number(x) + "\" cy=\"" + number(y) + "\" r=\"" + number(radius) +
             "\" style=\"fill:" + fill + "\" fill-opacity=\"" + fixed(opacity, 2) + "\"/>\n";
  }
  /// A line through points given as "x,y x,y ...", or the area that they enclose.
  void path(const std::string& points, const std::string& stroke, bool area,
            double opacity = 0.15) {
    if (points.empty()) return;
    text_ += area ? "<polygon points=\"" + points + "\" style=\"fill:" + stroke +
                        "\" fill-opacity=\"" + fixed(opacity, 2) + "\"/>\n"
                  : "<polyline points=\"" + points + "\" fill=\"none\" style=\"stroke:" + stroke +
                        "\" stroke-width=\"2\" stroke-linejoin=\"round\"/>\n";
  }
  /// A triangle that points along x: to the right, or to the left if `reach` is negative.
  void arrow(double x, double y, double reach, const std::string& fill) {
    text_ += "<polygon points=\"" + number(x + reach) + "," + number(y) + " " + number(x) + "," +
             number(y - 5) + " " + number(x) + "," + number(y + 5) + "\" style=\"fill:" + fill +
             "\"/>\n";
  }
  std::string finish() const { return text_ + "</svg>\n"; }

 private:
  std::string text_;
};

/// The points of a series in at most `most` means of neighbors, so that long curves stay readable.
inline Series thinned(const Series& from, std::size_t most = 200) {
  if (from.x.size() <= most || !from.low.empty()) return from;
  Series to{from.name, from.color, {}, {}, {}, {}, from.dots};
  for (std::size_t k = 0; k < most; ++k) {
    DefinedMean x, y;
    for (std::size_t i = k * from.x.size() / most; i < (k + 1) * from.x.size() / most; ++i)
      x.add(from.x[i]), y.add(from.y[i]);
    to.x.push_back(x.value()), to.y.push_back(y.value());
  }
  return to;
}

/// The chart as an SVG element.
inline std::string to_svg(const LineChart& chart) {
  double x_low = INFINITY, x_high = -INFINITY, y_low = INFINITY, y_high = -INFINITY;
  const auto widen = [](double value, double& low, double& high) {
    if (std::isfinite(value)) low = std::min(low, value), high = std::max(high, value);
  };
  std::vector<Series> all;
  for (const Series& series : chart.series) {
    all.push_back(thinned(series));
    for (const double x : all.back().x) widen(x, x_low, x_high);
    for (const auto* values : {&all.back().y, &all.back().low, &all.back().high})
      for (const double y : *values) widen(y, y_low, y_high);
  }
  if (chart.zero_line) widen(0, y_low, y_high);
  const Axis across = Axis::over(x_low, x_high, chart.width < 400 ? 4 : 6);
  const Axis up = chart.logarithmic && y_low > 0 && y_low <= y_high ? Axis::decades(y_low, y_high)
                                                                    : Axis::over(y_low, y_high, 5);
  SvgCanvas canvas(chart.width, chart.height, chart.title);

  std::vector<const Series*> legend;
  for (const Series& series : all)
    if (!series.name.empty() && std::none_of(legend.begin(), legend.end(), [&](const Series* one) {
          return one->name == series.name;
        }))
      legend.push_back(&series);
  double top = 16, at = 0;
  if (legend.size() > 1) {
    for (const Series* series : legend) {
      const double room = 34 + SvgCanvas::letter * double(series->name.size());
      if (at > 0 && at + room > double(chart.width)) at = 0, top += 18;
      canvas.line(at + 2, top - 4, at + 16, top - 4, SvgCanvas::color(series->color), 3);
      canvas.words(at + 22, top, "start", series->name);
      at += room;
    }
    top += 20;
  }
  const double left = 46, right = double(chart.width) - 12, bottom = double(chart.height) - 40;
  canvas.words(0, top, "start", chart.y_label);
  top += 12;
  const auto px = [&](double x) { return left + (right - left) * across.place(x); };
  const auto py = [&](double y) { return bottom - (bottom - top) * up.place(y); };
  for (Index i = 0; i < up.ticks(); ++i) {
    canvas.line(left, py(up.tick(i)), right, py(up.tick(i)), SvgCanvas::grid());
    canvas.words(left - 6, py(up.tick(i)) + 4, "end", up.text(i));
  }
  for (Index i = 0; i < across.ticks(); ++i)
    canvas.words(px(across.tick(i)), bottom + 17, "middle", across.text(i));
  canvas.words(right, bottom + 35, "end", chart.x_label);
  if (chart.zero_line) canvas.line(left, py(0), right, py(0), SvgCanvas::ink(), 1.2);

  const auto point = [&](double x, double y) {
    return SvgCanvas::number(px(x)) + "," + SvgCanvas::number(py(y)) + " ";
  };
  const auto banded = std::count_if(all.begin(), all.end(),
                                    [](const Series& series) { return !series.low.empty(); });
  for (const Series& series : all) {  // below all lines
    std::string band, back;
    for (std::size_t i = 0; i < series.low.size() && i < series.high.size(); ++i)
      if (std::isfinite(series.low[i]) && std::isfinite(series.high[i])) {
        band += point(series.x[i], series.high[i]);
        back = point(series.x[i], series.low[i]) + back;
      }
    canvas.path(band + back, SvgCanvas::color(series.color), true, banded > 3 ? 0.07 : 0.15);
  }
  for (const Series& series : all) {
    std::string run;
    for (std::size_t i = 0; i <= series.x.size(); ++i) {
      const bool defined =
          i < series.x.size() && std::isfinite(series.x[i]) && std::isfinite(series.y[i]);
      if (defined) run += point(series.x[i], series.y[i]);
      if (!defined) canvas.path(run, SvgCanvas::color(series.color), false), run.clear();
      if (defined && series.dots)
        canvas.dot(px(series.x[i]), py(series.y[i]), 4, SvgCanvas::color(series.color));
    }
  }
  return canvas.finish();
}

}  // namespace segmed
