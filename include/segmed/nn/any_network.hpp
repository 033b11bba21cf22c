// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <memory>

#include <segmed/nn/any_decoder.hpp>

namespace segmed {

/// Any network behind one type: chosen at run time, copied deeply, trained, saved and averaged like
/// every other module. The command line erases here, once, so that everything above is compiled for
/// one network only.
template <FeatureMap F>
class AnyNetwork {
 public:
  using Features = F;
  using P = typename F::P;

  // The exclusion stands first: asking for Network<AnyNetwork> would ask for this constructor
  // again.
  template <class N>
  requires(!std::same_as<N, AnyNetwork> && Network<N>) AnyNetwork(N net)
      : held_(std::make_unique<Holder<N>>(std::move(net))) {}
  AnyNetwork(const AnyNetwork& other) : held_(other.held_->clone()) {}
  /// With the same network inside only the values change hands, so that a Group stays as it is.
  AnyNetwork& operator=(const AnyNetwork& other) {
    if (this != &other && (!held_ || !held_->assign(*other.held_))) held_ = other.held_->clone();
    return *this;
  }
  AnyNetwork(AnyNetwork&&) noexcept = default;
  AnyNetwork& operator=(AnyNetwork&&) noexcept = default;
  ~AnyNetwork() = default;

  F operator()(const F& x) const { return held_->call(x); }
  F features(const F& x) const { return held_->features(x); }
  F classify(const F& x) const { return held_->classify(x); }
  std::vector<F> outputs(const F& x) const { return held_->outputs(x); }
  /// Whether `features` and `classify` may be called.
  bool splits() const { return held_->splits(); }
  std::vector<F> encode(const F& x) const { return held_->encode(x); }
  F decode(const std::vector<F>& levels) const { return held_->decode(levels); }
  std::vector<F> outputs(const std::vector<F>& levels) const { return held_->outputs_of(levels); }
  AnyDecoder<F> branch(const BranchOptions& options) const { return held_->branch(options); }
  /// Whether `encode`, `decode`, `branch` and `outputs` of levels may be called.
  bool codes() const { return held_->codes(); }

  /// Lists what the network inside lists, under the same paths.
  void list(Inventory& into) { held_->list(into); }
  static void members(auto& self, auto&& visit) { visit("net", self); }

 private:
  struct Held {
    virtual ~Held() = default;
    virtual F call(const F&) const = 0;
    virtual F features(const F&) const = 0;
    virtual F classify(const F&) const = 0;
    virtual std::vector<F> outputs(const F&) const = 0;
    virtual bool splits() const = 0;
    virtual std::vector<F> encode(const F&) const = 0;
    virtual F decode(const std::vector<F>&) const = 0;
    virtual std::vector<F> outputs_of(const std::vector<F>&) const = 0;
    virtual AnyDecoder<F> branch(const BranchOptions&) const = 0;
    virtual bool codes() const = 0;
    virtual std::unique_ptr<Held> clone() const = 0;
    virtual bool assign(const Held&) = 0;
    virtual const void* type() const = 0;
    virtual void list(Inventory&) = 0;
  };
  template <class N>
  struct Holder final : Held {
    N net;
    explicit Holder(N n) : net(std::move(n)) {}
    F call(const F& x) const override { return net(x); }
    F features(const F& x) const override {
      if constexpr (SplitNetwork<N>) return net.features(x);
      fail<Error>("AnyNetwork", "this network shows no decoder features");
    }
    F classify(const F& x) const override {
      if constexpr (SplitNetwork<N>) return net.classify(x);
      fail<Error>("AnyNetwork", "this network shows no decoder features");
    }
    std::vector<F> outputs(const F& x) const override {
      if constexpr (DeepNetwork<N>)
        return net.outputs(x);
      else
        return {net(x)};
    }
    bool splits() const override { return SplitNetwork<N>; }
    std::vector<F> encode(const F& x) const override {
      if constexpr (CodedNetwork<N>) return net.encode(x);
      fail_uncoded();
    }
    F decode(const std::vector<F>& levels) const override {
      if constexpr (CodedNetwork<N>) return net.decode(levels);
      fail_uncoded();
    }
    std::vector<F> outputs_of(const std::vector<F>& levels) const override {
      if constexpr (CodedNetwork<N> && requires { net.outputs(levels); })
        return net.outputs(levels);
      else if constexpr (CodedNetwork<N>)
        return {net.classify(net.decode(levels))};
      fail_uncoded();
    }
    AnyDecoder<F> branch(const BranchOptions& options) const override {
      if constexpr (CodedNetwork<N>) return net.branch(options);
      fail_uncoded();
    }
    bool codes() const override { return CodedNetwork<N>; }
    [[noreturn]] static void fail_uncoded() {
      fail<ConfigError>("AnyNetwork",
                        "this network shows no encoder, so that no policy can put a decoder of "
                        "its own on it; take one with `encode`, `decode` and `branch`, as UNet");
    }
    std::unique_ptr<Held> clone() const override { return std::make_unique<Holder>(net); }
    bool assign(const Held& other) override {
      if (other.type() != type()) return false;
      net = static_cast<const Holder&>(other).net;
      return true;
    }
    const void* type() const override {
      static const char tag = 0;
      return &tag;
    }
    void list(Inventory& into) override { into.list(net); }
  };
  std::unique_ptr<Held> held_;
};

}  // namespace segmed
