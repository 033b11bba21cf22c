// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <segmed/core/json.hpp>
#include <segmed/data/example.hpp>

namespace segmed {

/// How intensities become numbers that a network likes.
struct Normalization {
  enum class Kind {
    none,
    z_score,     // each scan by its own mean and deviation
    percentile,  // clipped to low and high, then by mean and deviation: of the training foreground
    window,      // low to high becomes 0 to 1, clipped
  };
  /// What was fitted or given for one channel.
  struct Range {
    float low = 0, high = 1, mean = 0, deviation = 1;
    friend bool operator==(const Range&, const Range&) = default;
  };
  Kind kind = Kind::z_score;
  bool nonzero = false;            // z_score: mean and deviation of the voxels that are not zero
  std::vector<Range> ranges = {};  // percentile and window: one a channel, or one for all

  static Normalization window(float low, float high) {
    require<ConfigError>(low < high, "normalize", "a window from ", low, " to ", high, " is empty");
    return {Kind::window, false, {{low, high, 0, 1}}};
  }
  /// What a voxel beyond the scan's border gets, channel by channel: what air would be.
  float outside(std::size_t channel) const {
    if (kind != Kind::percentile) return 0;
    const Range& range = ranges[std::min(channel, ranges.size() - 1)];
    return (range.low - range.mean) / range.deviation;
  }
  friend bool operator==(const Normalization&, const Normalization&) = default;
};

/// The kind's name in JSON and on the command line.
inline const char* name_of(Normalization::Kind kind) {
  constexpr const char* names[] = {"none", "z_score", "percentile", "window"};
  return names[std::size_t(kind)];
}

/// Rescales a scan in place. A voxel that is not finite counts as the least finite one.
///
///   throws   DataError when a channel has no finite voxel, ConfigError when ranges are missing
inline void normalize(Volume<float>& image, const Normalization& how) {
  check_filled(image, "normalize");
  const Index channels = image.channels, count = image.grid_size();
  const bool fitted =
      how.kind == Normalization::Kind::percentile || how.kind == Normalization::Kind::window;
  require<ConfigError>(!fitted || how.ranges.size() == 1 || Index(how.ranges.size()) == channels,
                       "normalize", name_of(how.kind), " has ", how.ranges.size(), " ranges for ",
                       channels, " channels; fit it on the training cases first");
  for (Index c = 0; c < channels; ++c) {
    float* first = image.voxels.data() + c;
    float least = std::numeric_limits<float>::infinity();
    double sum = 0;
    Index used = 0;
    bool whole = true;
    for (Index i = 0; i < count; ++i) {
      const float value = first[i * channels];
      if (!std::isfinite(value)) {
        whole = false;
        continue;
      }
      least = std::min(least, value);
      if (how.nonzero && value == 0) continue;
      sum += double(value), ++used;
    }
    require<DataError>(std::isfinite(least), "normalize", "channel ", c, " has no finite voxel");
    if (!whole)
      for (Index i = 0; i < count; ++i)
        if (!std::isfinite(first[i * channels])) first[i * channels] = least;
    if (how.kind == Normalization::Kind::none) continue;
    if (how.kind == Normalization::Kind::z_score) {
      const double mean = used > 0 ? sum / double(used) : 0.0;
      double square = 0;
      for (Index i = 0; i < count; ++i) {
        const double value = double(first[i * channels]);
        if (!(how.nonzero && value == 0)) square += (value - mean) * (value - mean);
      }
      const double deviation = used > 0 ? std::sqrt(square / double(used)) : 0.0;
      const float shift = float(mean), scale = deviation > 0 ? float(1 / deviation) : 1.0f;
      for (Index i = 0; i < count; ++i) {
        float& value = first[i * channels];
        value = how.nonzero && value == 0 ? 0.0f : (value - shift) * scale;
      }
      continue;
    }
    const auto& range = how.ranges[how.ranges.size() == 1 ? 0 : std::size_t(c)];
    const bool is_window = how.kind == Normalization::Kind::window;
    const float shift = is_window ? range.low : range.mean;
    const float scale = 1 / (is_window ? range.high - range.low : range.deviation);
    for (Index i = 0; i < count; ++i) {
      float& value = first[i * channels];
      value = (std::clamp(value, range.low, range.high) - shift) * scale;
    }
  }
}

/// Collects the training part's foreground intensities and fits percentile normalization to them.
///
///   source   Isensee et al., nnU-Net, Nature Methods 2021: clip to the percentiles 0.5 and 99.5 of
///            the foreground, then its mean and deviation; here of at most 20000 voxels a case
class IntensityFit {
 public:
  /// Adds a training case: its labelled foreground, or the whole scan where nothing is labelled.
  void add(const Example& example) {
    const Volume<float>& image = example.image;
    values_.resize(std::max(values_.size(), std::size_t(image.channels)));
    std::vector<Index> places;
    for (std::size_t i = 0; i < example.labels.voxels.size(); ++i)
      if (example.labels.voxels[i] != 0 && example.labels.voxels[i] != ignored)
        places.push_back(Index(i));
    const bool whole = places.empty();
    const Index count = whole ? image.grid_size() : Index(places.size());
    const Index step = std::max<Index>(1, (count + most_ - 1) / most_);
    for (Index k = 0; k < count; k += step) {
      const Index place = whole ? k : places[std::size_t(k)];
      for (Index c = 0; c < image.channels; ++c) {
        const float value = image.voxels[std::size_t(place * image.channels + c)];
        if (std::isfinite(value)) values_[std::size_t(c)].push_back(value);
      }
    }
  }
  /// The ranges of what was added, one a channel.
  ///
  ///   throws   DataError when nothing was added
  Normalization percentile(double low = 0.005, double high = 0.995) const {
    Normalization fitted{Normalization::Kind::percentile, false, {}};
    require<DataError>(!values_.empty(), "normalize", "no training case to fit intensities on");
    for (std::vector<float> values : values_) {
      require<DataError>(!values.empty(), "normalize", "no finite voxel to fit intensities on");
      std::sort(values.begin(), values.end());
      Normalization::Range range;
      range.low = quantile(values, low), range.high = quantile(values, high);
      double sum = 0, square = 0;
      for (const float value : values) sum += double(value);
      const double mean = sum / double(values.size());
      for (const float value : values) square += (double(value) - mean) * (double(value) - mean);
      range.mean = float(mean);
      range.deviation = std::max(1e-6f, float(std::sqrt(square / double(values.size()))));
      fitted.ranges.push_back(range);
    }
    return fitted;
  }

 private:
  static constexpr Index most_ = 20000;
  static float quantile(const std::vector<float>& sorted, double part) {
    const double at = part * double(sorted.size() - 1);
    const auto below = std::size_t(at), above = std::min(below + 1, sorted.size() - 1);
    const double t = at - double(below);
    return float((1 - t) * double(sorted[below]) + t * double(sorted[above]));
  }
  std::vector<std::vector<float>> values_;
};

/// {"kind", "nonzero", "ranges": [{"low", "high", "mean", "deviation"}]}.
inline Json to_json(const Normalization& how) {
  Json json;
  json["kind"] = name_of(how.kind);
  json["nonzero"] = how.nonzero;
  json["ranges"] = Json::Array{};
  for (const auto& range : how.ranges) {
    Json entry;
    entry["low"] = range.low, entry["high"] = range.high;
    entry["mean"] = range.mean, entry["deviation"] = range.deviation;
    json["ranges"].push_back(entry);
  }
  return json;
}
/// Throws DataError for a kind that is not known.
inline Normalization normalization_of(const Json& json) {
  using Kind = Normalization::Kind;
  Normalization how;
  const std::string& name = json.at("kind").as_string();
  bool known = false;
  for (const Kind kind : {Kind::none, Kind::z_score, Kind::percentile, Kind::window})
    if (name == name_of(kind)) how.kind = kind, known = true;
  require<DataError>(known, "normalize", "kind ", name,
                     " is none of none, z_score, percentile, window");
  how.nonzero = json.at("nonzero").as_bool();
  for (const Json& entry : json.at("ranges").as_array())
    how.ranges.push_back({float(entry.at("low").as_number()), float(entry.at("high").as_number()),
                          float(entry.at("mean").as_number()),
                          float(entry.at("deviation").as_number())});
  return how;
}

}  // namespace segmed
