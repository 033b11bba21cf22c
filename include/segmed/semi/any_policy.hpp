// SPDX-License-Identifier: Apache-2.0
// Policies that are chosen at run time: their names stand on a command line.
#pragma once
#include <functional>
#include <memory>
#include <type_traits>
#include <variant>
#include <vector>

#include <segmed/semi/policy.hpp>

namespace segmed {

/// Any policy behind one type, or several at once, so that everything above is compiled for one
/// policy only: copied deeply, trained and saved like every other policy, and the same bits as the
/// policy itself, or as `Both` of two. Several are saved under their names, and their options are
/// called after them, as in "rdrop.weight"; one is saved and set as without this.
template <Network Net, class Loss>
class AnyPolicy {
 public:
  using F = typename Net::Features;
  using Now = SemiStep<Net, Loss>;
  using Value = typename Now::Value;

  /// One policy. Its name is for several, and for what is said of it.
  template <class P>
  AnyPolicy(std::string name, P policy) {
    parts_.push_back({std::move(name), std::make_unique<Holder<P>>(std::move(policy))});
  }
  /// Several at once, in this order. At most one of them may replace the term of the labels, and at
  /// most one may name the network to predict with.
  ///
  ///   throws   ConfigError for two that cannot work together, and for none at all
  static AnyPolicy together(std::vector<AnyPolicy> policies) {
    AnyPolicy all;
    for (AnyPolicy& policy : policies)
      for (Part& part : policy.parts_) all.parts_.push_back(std::move(part));
    require<ConfigError>(!all.parts_.empty(), "policy", "there is none; give one or more");
    std::vector<NamedHooks> hooks;
    for (const Part& part : all.parts_) hooks.push_back({part.name, part.held->facts().hooks});
    check_together(hooks);
    return all;
  }
  AnyPolicy(const AnyPolicy& other) {
    for (const Part& part : other.parts_) parts_.push_back({part.name, part.held->clone()});
  }
  AnyPolicy(AnyPolicy&&) noexcept = default;
  AnyPolicy& operator=(const AnyPolicy&) = delete;  // a Group would lose its parameters
  AnyPolicy& operator=(AnyPolicy&&) = delete;
  ~AnyPolicy() = default;

  PolicyFacts facts() const {
    PolicyFacts facts = parts_.front().held->facts();
    for (std::size_t i = 1; i < parts_.size(); ++i) facts = facts + parts_[i].held->facts();
    return facts;
  }
  Index round_count() const {
    Index rounds = 1;
    for (const Part& part : parts_) rounds = std::max(rounds, part.held->rounds());
    return rounds;
  }

  /// The term of the part that has one of its own, or the usual one.
  Value supervised(Now& now) {
    for (Part& part : parts_)
      if (part.held->facts().hooks.supervised) return part.held->supervised(now);
    return segmed::supervised(now);
  }
  Value loss(Now& now) {
    return loss(now, [&](Now& step) { return supervised(step); });
  }
  template <class Term>
  Value loss(Now& now, const Term& labelled) {
    const Labelled term{[&](Now& step) { return labelled(step); }};
    Value sum = parts_.front().held->loss(now, term);
    for (std::size_t i = 1; i < parts_.size(); ++i) sum = sum + parts_[i].held->loss(now, term);
    return sum;
  }
  void after_step(Now& now) {
    for (Part& part : parts_) part.held->after_step(now);
  }
  void start_round(Round<F>& round) {
    for (Part& part : parts_) part.held->start_round(round);
  }
  /// The network that a part names, or the student.
  const Net& predictor(const Net& student) const {
    for (const Part& part : parts_)
      if (part.held->facts().hooks.predictor) return part.held->predictor(student);
    return student;
  }

  /// Lists what the policies keep.
  void list(Inventory& into) {
    Several all{parts_};
    if (parts_.size() > 1)
      into.list(all);
    else
      parts_.front().list(into);
  }
  static void options(auto& self, auto&& visit) {
    constexpr bool constant = std::is_const_v<std::remove_reference_t<decltype(self)>>;
    for (auto& part : self.parts_)
      for (const Option& option : part.held->options()) {
        const std::string name =
            self.parts_.size() > 1 ? part.name + '.' + option.name : option.name;
        const auto one = [&](auto* value) {
          using T = std::remove_pointer_t<decltype(value)>;
          std::conditional_t<constant, const T, T>& seen = *value;
          visit(name.c_str(), seen, option.range);
        };
        std::visit(one, option.value);
      }
  }

 private:
  /// The term of the labels, for a step of any network of the student's type.
  struct Labelled {
    std::function<Value(Now&)> of;
    template <class Step>
    Value operator()(Step& step) const {
      static_assert(std::same_as<Step, Now>,
                    "AnyPolicy: a second network must be of the student's type; make both of them "
                    "AnyNetwork; see nn/any_network.hpp");
      return of(step);
    }
  };
  struct Option {
    std::string name;
    std::variant<bool*, int*, Index*, float*, double*> value;
    OptionRange range;
  };
  struct Held {
    virtual ~Held() = default;
    virtual PolicyFacts facts() const = 0;
    virtual Index rounds() const = 0;
    virtual Value supervised(Now&) = 0;
    virtual Value loss(Now&, const Labelled&) = 0;
    virtual void after_step(Now&) = 0;
    virtual void start_round(Round<F>&) = 0;
    virtual const Net& predictor(const Net&) const = 0;
    virtual void list(Inventory&) = 0;
    virtual std::vector<Option> options() = 0;
    virtual std::unique_ptr<Held> clone() const = 0;
  };
  template <class P>
  struct Holder final : Held {
    static_assert(checked_policy<P, Net, Loss>());
    static constexpr PolicyFacts known = facts_of<P, Net, Loss>();
    P policy;

    explicit Holder(P p) : policy(std::move(p)) {}
    PolicyFacts facts() const override { return known; }
    Index rounds() const override { return rounds_of(policy); }
    Value supervised(Now& now) override { return supervised_by(policy, now); }
    Value loss(Now& now, const Labelled& term) override { return loss_by(policy, now, term); }
    void after_step(Now& now) override {
      if constexpr (known.hooks.after_step) policy.after_step(now);
    }
    void start_round(Round<F>& round) override {
      if constexpr (known.hooks.start_round) policy.start_round(round);
    }
    const Net& predictor(const Net& student) const override {
      return segmed::predictor(policy, student);
    }
    void list(Inventory& into) override { into.list(policy); }
    std::vector<Option> options() override {
      std::vector<Option> all;
      each_option(policy, [&](const std::string& name, auto& value, const OptionRange& range) {
        all.push_back({name, &value, range});
      });
      return all;
    }
    std::unique_ptr<Held> clone() const override { return std::make_unique<Holder>(policy); }
  };
  struct Part {
    std::string name;
    std::unique_ptr<Held> held;
    void list(Inventory& into) { held->list(into); }
  };
  struct Several {
    std::vector<Part>& parts;
    static void members(auto& self, auto&& visit) {
      for (Part& part : self.parts) visit(part.name, part);
    }
  };

  AnyPolicy() = default;
  std::vector<Part> parts_;
};

}  // namespace segmed
