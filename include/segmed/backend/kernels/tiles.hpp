// SPDX-License-Identifier: Apache-2.0
// Tiles of a grid for Winograd's minimal filtering, and what they read, turned into frequencies.
// Read once per instruction set: see simd.hpp.
//
// Groups of neighbouring tiles share one packed box, so that pending work is done once for most
// voxels. The box is turned along depth as it is packed, where tiles that stand side by side share
// what they read; each slice of a frequency along depth is then turned along the other axes, tile
// by tile.
#include <segmed/backend/kernels/minimal.hpp>

namespace segmed::SEGMED_SET {

// A grid of cases in tiles, and those in groups.
struct Tiles {
  Grid grid;
  Index m[3];                 // voxels of a tile
  Index count[3];             // tiles of a case
  Index group[3];             // tiles of a group
  std::vector<Index> starts;  // tiles before each group, over all cases

  // Groups of at most `most` tiles; what is done for a tile costs as much as to pack `weight`
  // voxels.
  Tiles(const Grid& g, const Index (&size)[3], Index most, double weight) : grid(g) {
    const Index extent[3] = {g.depth, g.height, g.width};
    for (int a = 0; a < 3; ++a) m[a] = size[a], count[a] = pieces(extent[a], m[a]), group[a] = 1;
    choose_group(most, weight);
    starts.push_back(0);
    for (Index i = 0; i < groups(); ++i) starts.push_back(starts.back() + at(i).tiles());
  }
  struct Group {
    Index n, first[3], extent[3];  // in tiles
    Index tiles() const { return extent[0] * extent[1] * extent[2]; }
  };
  Index groups_of_case() const {
    return pieces(count[0], group[0]) * pieces(count[1], group[1]) * pieces(count[2], group[2]);
  }
  Index groups() const { return grid.cases * groups_of_case(); }
  Group at(Index i) const {
    Group g;
    for (int a = 2; a >= 0; --a) {
      const Index n = pieces(count[a], group[a]);
      g.first[a] = i % n * group[a], g.extent[a] = std::min(group[a], count[a] - g.first[a]);
      i /= n;
    }
    g.n = i;
    return g;
  }
  // The end of the run of groups from `begin` on that has at most `most` tiles, or one group.
  Index run(Index begin, Index most) const {
    Index end = begin + 1;
    while (end < groups() && starts[std::size_t(end + 1)] - starts[std::size_t(begin)] <= most)
      ++end;
    return end;
  }
  Index tiles_in(Index begin, Index end) const {
    return starts[std::size_t(end)] - starts[std::size_t(begin)];
  }
  // Frequencies along depth, of one slice of these, and all.
  Index slices() const { return reach_of(m[0]); }
  Index plane() const { return reach_of(m[1]) * reach_of(m[2]); }
  Index frequencies() const { return slices() * plane(); }

 private:
  void choose_group(Index most, double weight) {
    double best = 1e300;
    Index n[3];
    for (n[0] = 1; n[0] <= std::min(count[0], most); ++n[0])
      for (n[1] = 1; n[1] <= std::min(count[1], most / n[0]); ++n[1])
        for (n[2] = 1; n[2] <= std::min(count[2], most / n[0] / n[1]); ++n[2]) {
          const double found = cost(n, weight);
          if (found < best) best = found, std::copy(n, n + 3, group);
        }
  }
  // Products are made of whole blocks of tiles, or halves of them. The groups at the far ends are
  // smaller.
  double cost(const Index (&n)[3], double weight) const {
    constexpr Index half = block_rows<2> / 2;
    double sum = 0;
    for (int end = 0; end < 8; ++end) {
      double groups = 1, voxels = 1;
      Index tiles = 1;
      for (int a = 0; a < 3; ++a) {
        const bool last = end >> a & 1;
        const Index here = last ? count[a] % n[a] : n[a];
        groups *= double(last ? here > 0 : count[a] / n[a]);
        voxels *= double(here * m[a] + taps_of(m[a]) + (a == 2 ? 32 : -1));  // rows are dear
        tiles *= here;
      }
      sum += groups * (voxels + weight * double(pieces(tiles, half) * half));
    }
    return sum;
  }
};

// [frequency][block of channels][tile][channel] of a run of groups.
template <class T>
struct Planes {
  const ChannelBlocks<T>& blocks;
  Index room, plane;  // tiles, with some to spare; numbers of a frequency
  T* data = nullptr;

  Planes(const ChannelBlocks<T>& b, Index tiles)
      // Planes that lie a power of two apart would share few places of the cache.
      : blocks(b), room(tiles + 8), plane(room * b.padded + 16) {}
  T* at(Index f, Index b, Index tile) const {
    return data + f * plane + room * blocks.first(b) + tile * blocks.width(b);
  }
};

// Feeds to frequencies: tiles with their surroundings (input), or tiles alone (output_adjoint).
template <class T, Turn turn>
struct TurnFeed {
  // Channels of a group's box, turned along depth: [frequency][layer of
  // tiles][row][voxel][channel].
  struct Slices {
    Index first, width, size[2], layer,
        step;  // rows and voxels; numbers of a layer and a frequency
    T* data;
  };
  const Tiles& tiles;
  const Feed<T>& feed;
  const Grid& grid;     // of the feed
  Index low[3];         // from a tile's corner to what it reads
  Index first_channel;  // of the feed's
  TurnLines<T> along_depth;
  TurnPlane<T, turn> plane;

  TurnFeed(const Tiles& t, const Feed<T>& f, const Grid& g, const Index (&l)[3], Index c = 0)
      : tiles(t),
        feed(f),
        grid(g),
        low{l[0], l[1], l[2]},
        first_channel(c),
        along_depth(lines_of<T, turn>(t.m[0])),
        plane(t.m) {}

  // Of channels [c0, c0 + width), of which `live` exist.
  Slices slices(const Tiles::Group& g, Index first, Index width) const {
    Slices s{first, width, {extent(g, 1), extent(g, 2)}, 0, 0, nullptr};
    s.layer = s.size[0] * s.size[1] * width, s.step = g.extent[0] * s.layer + 16;
    return s;
  }
  Index numbers(const Slices& s) const { return after(turn, tiles.m[0]) * s.step; }
  void read(const Tiles::Group& g, Index live, const Slices& to) const {
    constexpr Index L = lanes<T>;
    const Index depth = extent(g, 0), line = to.size[1] * to.width, z0 = first(g, 0);
    const bool copies = tiles.m[0] == 1;  // then rows go where they belong
    T* const rows = copies ? nullptr : thread_scratch<T, 0>(depth * line);
    if (live < to.width) {
      if (copies)
        std::fill_n(to.data, numbers(to), T(0));
      else
        std::fill_n(rows, depth * line, T(0));
    }
    const FeedRows<T> from(feed, g.n, first_channel + to.first, live);
    Box box{{z0, 0, first(g, 2)}, {1, 1, to.size[1]}};
    for (Index y = 0; y < to.size[0]; ++y) {
      box.low[1] = first(g, 1) + y;
      for (Index z = 0; z < depth; ++z) {
        box.low[0] = z0 + z;
        read_box(from, grid, box, to.width,
                 copies ? to.data + z * to.layer + y * line : rows + z * line);
      }
      if (copies) continue;
      for (Index z = 0; z < g.extent[0]; ++z)
        along_depth(rows + z * tiles.m[0] * line, line, L, to.data + z * to.layer + y * line,
                    to.step, L, line / L);
    }
  }
  // A slice's frequencies of block b, which its channels hold, to tiles from `at` on; the first of
  // them is frequency f of the planes.
  void turn_slice(const Tiles::Group& g, const Slices& s, Index slice, Index b, const Planes<T>& to,
                  Index f, Index at) const {
    const Index width = to.blocks.width(b), row = s.size[1] * s.width;
    const T* const from = s.data + slice * s.step + to.blocks.first(b) - s.first;
    for (Index z = 0; z < g.extent[0]; ++z)
      for (Index y = 0; y < g.extent[1]; ++y)
        for (Index x = 0; x < g.extent[2]; ++x, ++at) {
          const T* tile = from + z * s.layer + y * tiles.m[1] * row + x * tiles.m[2] * s.width;
          T* const to_tile = to.at(f, b, at);
          for (Index c = 0; c < width; c += lanes<T>)
            plane(tile + c, row, s.width, to_tile + c, to.plane);
        }
  }
  // Block b of the channels of group i, to tiles from `at` on.
  void operator()(Index i, Index b, const Planes<T>& to, Index at) const {
    const Tiles::Group g = tiles.at(i);
    Slices s = slices(g, to.blocks.first(b), to.blocks.width(b));
    s.data = thread_scratch<T, 3>(numbers(s));
    read(g, to.blocks.live(b), s);
    for (Index slice = 0; slice < tiles.slices(); ++slice)
      turn_slice(g, s, slice, b, to, slice * tiles.plane(), at);
  }

 private:
  Index first(const Tiles::Group& g, int a) const { return g.first[a] * tiles.m[a] + low[a]; }
  Index extent(const Tiles::Group& g, int a) const {
    return (g.extent[a] - 1) * tiles.m[a] + before(turn, tiles.m[a]);
  }
};

// The box of a group, turned along depth, chunk by chunk of its channels.
template <class T, Turn turn>
struct Boxes {
  static constexpr Index chunk = Pending<T>::most;  // channels

  const TurnFeed<T, turn>& feed;
  const ChannelBlocks<T>& blocks;

  using Slices = typename TurnFeed<T, turn>::Slices;
  Index chunks() const { return pieces(blocks.padded, chunk); }
  Index numbers(Index group) const {
    const Tiles::Group g = feed.tiles.at(group);
    Index sum = 0;
    for (Index i = 0; i < chunks(); ++i) sum += feed.numbers(slices(g, i));
    return sum;
  }
  // Chunk i of a group whose box begins at `box`.
  void read(Index group, Index i, T* box) const {
    const Tiles::Group g = feed.tiles.at(group);
    for (Index k = 0; k < i; ++k) box += feed.numbers(slices(g, k));
    Slices s = slices(g, i);
    s.data = box;
    feed.read(g, std::min(s.width, blocks.channels - s.first), s);
  }
  // A slice of all chunks to tiles from `at` on of planes that hold its frequencies alone.
  void turn_slice(Index group, T* box, Index slice, const Planes<T>& to, Index at) const {
    const Tiles::Group g = feed.tiles.at(group);
    for (Index i = 0, b = 0; i < chunks(); ++i) {
      Slices s = slices(g, i);
      s.data = box, box += feed.numbers(s);
      for (; b < blocks.count && blocks.first(b) < s.first + s.width; ++b)
        feed.turn_slice(g, s, slice, b, to, 0, at);
    }
  }

 private:
  Slices slices(const Tiles::Group& g, Index i) const {
    return feed.slices(g, i * chunk, std::min(chunk, blocks.padded - i * chunk));
  }
};

}  // namespace segmed::SEGMED_SET
