// Whatever a peer sends as a batch ends in an answer: the process checks it before the device and
// its backends' own checks, which abort, can see it.

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <thread>

#include "tests/worker/embed_helpers.hpp"
#include "worker/create_engine.hpp"
#include "worker/link/batch_runner.hpp"

namespace tessera::worker {
namespace {

constexpr const char* kDemo = "deploy/data/demo-model";

protocol::Batch batch_of(const std::vector<Ids>& sequences) {
  protocol::Batch batch{.epoch = 1, .batch_id = 1, .attempt = 1};
  for (const Ids& ids : sequences) {
    batch.lengths.push_back(static_cast<std::uint32_t>(ids.size()));
    const auto* bytes = reinterpret_cast<const std::byte*>(ids.data());
    batch.payload.insert(batch.payload.end(), bytes, bytes + ids.size() * sizeof(std::int32_t));
  }
  return batch;
}

std::vector<protocol::Batch> hostile_batches() {
  std::vector<protocol::Batch> batches;
  const auto add = [&](const std::vector<Ids>& sequences,
                       const std::function<void(protocol::Batch&)>& change) {
    change(batches.emplace_back(batch_of(sequences)));
  };
  const auto as_it_is = [](protocol::Batch&) {};
  add({}, as_it_is);
  add({{}}, as_it_is);
  add({{1, 2}, {}, {3}}, as_it_is);
  add({{-1}}, as_it_is);
  add({{1 << 30}}, as_it_is);
  add({Ids(600, 1)}, as_it_is);                      // Longer than is taken.
  add(std::vector<Ids>(40, Ids(500, 1)), as_it_is);  // More tokens.
  add(std::vector<Ids>(5000, Ids(1, 1)), as_it_is);  // More sequences.
  add({{1, 2}}, [](auto& b) { b.lengths = {1}; });   // Ids of nobody.
  add({{1, 2}}, [](auto& b) { b.lengths = {3}; });   // Ids that are not there.
  add({{1, 2}}, [](auto& b) { b.lengths = {0xFFFFFFFF, 3}; });
  add({{1, 2}}, [](auto& b) { b.lengths.assign(1000, 0x80000001); });
  add({{1, 2}}, [](auto& b) { b.payload.pop_back(); });
  add({{1, 2}}, [](auto& b) { b.payload.clear(); });
  return batches;
}

protocol::BatchResult answer(BatchRunner& runner, protocol::Batch batch) {
  EXPECT_TRUE(runner.submit(std::move(batch), 1));
  for (int i = 0; i < 60'000; ++i) {
    if (auto outcome = runner.take_result()) {
      return std::move(outcome->result);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ADD_FAILURE() << "no answer";
  return {};
}

void expect_all_answered(const char* tp) {
  net::WakeUp wake_up;
  BatchRunner runner(
      [tp] {
        return create_engine({.model_dir = kDemo,
                              .tp = tp,
                              .threads = 2,
                              .max_batch_tokens = 4096,
                              .max_seqlen = 512,
                              .measure_cost = false});
      },
      wake_up);
  while (!runner.wait_ready(std::chrono::seconds(1))) {
  }
  std::size_t place = 0;
  for (protocol::Batch& batch : hostile_batches()) {
    const std::size_t sequences = batch.lengths.size();
    const protocol::BatchResult result = answer(runner, std::move(batch));
    ASSERT_EQ(result.codes.size(), sequences) << place;
    for (const std::uint8_t code : result.codes) {
      ASSERT_EQ(static_cast<ErrorCode>(code), ErrorCode::kInternal) << place;
    }
    ++place;
  }
  // The longest there may be beside the shortest: nothing that a group would cut into segments.
  const auto good = answer(runner, batch_of({Ids(512, 5), {1}, Ids(511, 6), Ids(512, 7)}));
  EXPECT_EQ(good.codes, (std::vector<std::uint8_t>{0, 0, 0, 0}));
}

TEST(HostileBatches, AreAnsweredByOneDevice) { expect_all_answered("1"); }

TEST(HostileBatches, AreAnsweredByAGroup) { expect_all_answered("2"); }

// Vectors so wide that a few of them fit no message.
class WideEngine : public Engine {
 public:
  WideEngine() { info_.hidden_size = 1 << 20; }
  const EngineInfo& info() const override { return info_; }
  int slots() const override { return 2; }
  Result<void> check(const kernels::PackedBatchView&) const override { return {}; }
  void enqueue(int, const kernels::PackedBatchView&) override { ADD_FAILURE() << "was computed"; }
  bool wait_unless(int, const std::function<bool()>&) override { return true; }
  std::span<const float> vectors(int) const override { return {}; }
  std::span<const std::uint8_t> finite(int) const override { return {}; }

 private:
  EngineInfo info_;
};

TEST(HostileBatches, WhoseAnswerFitsNoMessageAreNotComputed) {
  net::WakeUp wake_up;
  BatchRunner runner([] { return std::make_unique<WideEngine>(); }, wake_up);
  while (!runner.wait_ready(std::chrono::seconds(1))) {
  }
  const auto result = answer(runner, batch_of(std::vector<Ids>(64, Ids{1})));
  EXPECT_EQ(result.codes, std::vector<std::uint8_t>(64, 16));
}

}  // namespace
}  // namespace tessera::worker
