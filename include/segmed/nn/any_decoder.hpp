// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>

#include <segmed/nn/network.hpp>

namespace segmed {

/// From an encoder's levels, the finest first, to logits: a copyable module.
template <class M, class F>
concept Decoder = Module<M> && std::copyable<M> &&
    requires(const M& decode, const std::vector<F>& levels) {
  { decode(levels) } -> std::same_as<F>;
};

/// Any decoder with a head behind one type: what `branch` gives, whose upsampling is chosen at run
/// time. Copied deeply, trained and saved like every other module.
template <FeatureMap F>
class AnyDecoder {
 public:
  using Features = F;

  template <class M>
  requires(!std::same_as<M, AnyDecoder> && Decoder<M, F>) AnyDecoder(M decoder)
      : held_(std::make_unique<Holder<M>>(std::move(decoder))) {}
  AnyDecoder(const AnyDecoder& other) : held_(other.held_->clone()) {}
  /// With the same decoder inside only the values change hands, so that a Group stays as it is.
  AnyDecoder& operator=(const AnyDecoder& other) {
    if (this != &other && (!held_ || !held_->assign(*other.held_))) held_ = other.held_->clone();
    return *this;
  }
  AnyDecoder(AnyDecoder&&) noexcept = default;
  AnyDecoder& operator=(AnyDecoder&&) noexcept = default;
  ~AnyDecoder() = default;

  F operator()(const std::vector<F>& levels) const { return held_->call(levels); }

  /// Lists what the decoder inside lists, under the same paths.
  void list(Inventory& into) { held_->list(into); }
  static void members(auto& self, auto&& visit) { visit("decoder", self); }

 private:
  struct Held {
    virtual ~Held() = default;
    virtual F call(const std::vector<F>&) const = 0;
    virtual std::unique_ptr<Held> clone() const = 0;
    virtual bool assign(const Held&) = 0;
    virtual const void* type() const = 0;
    virtual void list(Inventory&) = 0;
  };
  template <class M>
  struct Holder final : Held {
    M decoder;
    explicit Holder(M m) : decoder(std::move(m)) {}
    F call(const std::vector<F>& levels) const override { return decoder(levels); }
    std::unique_ptr<Held> clone() const override { return std::make_unique<Holder>(decoder); }
    bool assign(const Held& other) override {
      if (other.type() != type()) return false;
      decoder = static_cast<const Holder&>(other).decoder;
      return true;
    }
    const void* type() const override {
      static const char tag = 0;
      return &tag;
    }
    void list(Inventory& into) override { into.list(decoder); }
  };
  std::unique_ptr<Held> held_;
};

}  // namespace segmed
