// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/tape.hpp>
#include <segmed/backend/convolution.hpp>
#include <segmed/core/archive.hpp>
#include <segmed/core/random.hpp>
#include <segmed/tensor/storage.hpp>

namespace segmed {

/// Numbers that a module keeps and a checkpoint saves, whatever their type: a Param or a Buffer.
class Leaf {
 public:
  virtual Index size() const = 0;
  /// Whether it is a parameter.
  virtual bool trainable() const = 0;
  /// The name of its number type, as in StoredTensor.
  virtual const char* type() const = 0;
  /// A parameter starts anew from (seed, path): neither the order of construction nor threads play
  /// a part.
  virtual void initialize(std::uint64_t seed, std::string_view path) = 0;
  virtual StoredTensor stored() const = 0;
  /// Takes numbers of its own type and count.
  virtual void restore(const StoredTensor& tensor) = 0;

 protected:
  Leaf() = default;
  Leaf(const Leaf&) = default;
  Leaf& operator=(const Leaf&) = default;
  ~Leaf() = default;
};

/// How a parameter starts: a constant, or normal numbers of a deviation.
struct Init {
  double constant = 0;
  double deviation = 0;
};

template <class W, Device D>
struct ParamState : ParamUse {
  using Forms = typename FormsOf<D, W>::type;

  Storage<W, D> value, grad;
  Forms forms;  // of the values, as convolutions keep them

  LastingWeights<W, Forms> lasting() { return {value.read(), value.version(), &forms}; }
};

/// Trainable numbers, in the wide type and without a rank: the layer that owns them knows what they
/// mean. Copies are deep; assignment writes the values and leaves the owner's Group as it is.
template <class W, Device D>
class Param final : public Leaf {
 public:
  using value_type = W;
  using device = D;
  using State = ParamState<W, D>;

  explicit Param(Index size = 0, Init init = {})
      : state_(std::make_shared<State>()), init_(init), size_(size) {
    state_->value = Storage<W, D>(size, Uninitialized{});
    initialize(0, "");
  }
  Param(const Param& other)
      : Leaf(),
        state_(Mode::current().alias ? other.state_ : std::make_shared<State>()),
        init_(other.init_),
        size_(other.size_) {
    if (state_ != other.state_) {
      state_->value = other.value().clone();
      state_->name = other.state_->name;
    }
  }
  Param& operator=(const Param& other) {
    if (this == &other) return *this;
    if (other.size() != size()) return *this = Param(other);
    D::copy(state_->value.write(), other.value().read(), sizeof(W) * std::size_t(size_));
    return *this;
  }
  Param(Param&&) noexcept = default;
  Param& operator=(Param&&) noexcept = default;
  ~Param() = default;

  Index size() const override { return size_; }
  bool empty() const { return size_ == 0; }
  bool trainable() const override { return true; }
  const char* type() const override { return type_name<W>(); }
  StoredTensor stored() const override { return StoredTensor::of(value().host()); }
  void restore(const StoredTensor& tensor) override { value().assign(tensor.as<W>()); }
  Storage<W, D>& value() { return state_->value; }
  const Storage<W, D>& value() const { return state_->value; }
  Storage<W, D>& grad() const { return state_->grad; }
  const std::shared_ptr<State>& state() const { return state_; }
  /// Whether an op that uses it now must bring it a gradient.
  bool trained() const { return size_ > 0 && Mode::current().record && Mode::current().weights; }

  void initialize(std::uint64_t seed, std::string_view path) override {
    std::vector<W> values(std::size_t(size_), W(init_.constant));
    const std::uint64_t key = hash_of(path);
    const Philox random{seed ^ (key & 0xFFFFFFFF00000000u), Purpose::initialize,
                        std::uint32_t(key)};
    if (init_.deviation > 0)
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] += W(init_.deviation * double(random.normal(Index(i))));
    state_->value.assign(values);
  }

 private:
  std::shared_ptr<State> state_;
  Init init_;
  Index size_;
};

/// Numbers that a module keeps beside its parameters: running statistics. Saved and averaged with a
/// teacher, never trained.
template <class W, Device D>
class Buffer final : public Leaf {
 public:
  explicit Buffer(Index size = 0, W fill = 0) : value_(size, fill) {}
  Buffer(const Buffer& other)
      : Leaf(), value_(Mode::current().alias ? other.value_ : other.value_.clone()) {}
  Buffer& operator=(const Buffer& other) {
    if (this == &other) return *this;
    require(other.size() == size(), "Buffer", "size ", other.size(), " cannot replace ", size());
    D::copy(value_.write(), other.value_.read(), sizeof(W) * std::size_t(size()));
    return *this;
  }
  Buffer(Buffer&&) noexcept = default;
  Buffer& operator=(Buffer&&) noexcept = default;
  ~Buffer() = default;

  Index size() const override { return value_.size(); }
  bool trainable() const override { return false; }
  const char* type() const override { return type_name<W>(); }
  void initialize(std::uint64_t, std::string_view) override {}
  StoredTensor stored() const override { return StoredTensor::of(value_.host()); }
  void restore(const StoredTensor& tensor) override { value_.assign(tensor.as<W>()); }
  /// Writable through a const module, because a forward pass updates statistics.
  Storage<W, D>& running() const { return value_; }

 private:
  mutable Storage<W, D> value_;
};

}  // namespace segmed
