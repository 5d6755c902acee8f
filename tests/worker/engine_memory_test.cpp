// What a worker takes: the limits that it picks from free memory, the sum that it prints, and that
// it takes nothing while it serves.

#include <gmock/gmock.h>

#include "common/model/synthetic_model.hpp"
#include "tests/common/model/scratch_folder.hpp"
#include "tests/support/host_backend.hpp"
#include "tests/worker/embed_helpers.hpp"
#include "worker/engine/engine_plan.hpp"
#include "worker/engine/single_engine.hpp"

namespace tessera::worker {
namespace {

using ::testing::HasSubstr;

// A device with page-locked staging on its host, and with recordings of small batches.
class FakeDevice final : public testing::HostBackend {
 public:
  std::string name() const override { return "fake device"; }
  std::vector<kernels::MemoryTerm> own_memory(const kernels::BatchLimits& limits,
                                              const kernels::EncoderShape&, int) const override {
    return {{.what = "slots", .bytes = static_cast<std::size_t>(limits.max_tokens) * 64},
            {.what = "slots", .bytes = std::size_t{1} << 40, .page_locked = true}};
  }
  std::vector<kernels::RecordedSize> recorded_sizes() const override { return {{8, 1}, {24, 4}}; }
  void record(bool on) override { recording_ = on; }
  Start begin(kernels::BatchSlot& slot, const kernels::PackedBatchView& batch) override {
    if (recording_) recorded.push_back({batch.total_tokens(), batch.num_sequences()});
    return HostBackend::begin(slot, batch);
  }
  std::vector<std::pair<std::int64_t, std::int64_t>> recorded;

 private:
  bool recording_ = false;
};

const ModelConfig kConfig{.hidden_size = 64,
                          .num_hidden_layers = 2,
                          .intermediate_size = 192,
                          .num_attention_heads = 2,
                          .num_key_value_heads = 1,
                          .head_dim = 128,
                          .vocab_size = 512,
                          .max_position_embeddings = 40960,
                          .tie_word_embeddings = true,
                          .torch_dtype = "float32"};

kernels::BatchLimits fit(std::size_t free_bytes, const EngineOptions& options) {
  return fit_limits(options, kConfig, FakeDevice(), free_bytes);
}

std::uint64_t sum(const kernels::BatchLimits& limits) {
  return MemoryPlan(kConfig, FakeDevice(), limits).device_bytes();
}

std::string refusal(std::size_t free_bytes, const EngineOptions& options) {
  try {
    (void)fit(free_bytes, options);
  } catch (const FatalError& error) {
    return error.what();
  }
  return "";
}

TEST(Limits, HoldTheLongestTextWhereMemoryIsPlenty) {
  const auto limits = fit(std::size_t{1} << 34, {.device = "cuda:0"});
  EXPECT_EQ(limits.max_tokens, 40960);
  EXPECT_EQ(limits.max_seqlen, 40960);
  const auto shorter = fit(std::size_t{1} << 34, {.device = "cuda:0", .max_seqlen = 512});
  EXPECT_EQ(shorter.max_tokens, 32768);
  EXPECT_EQ(shorter.max_seqlen, 512);
}

TEST(Limits, AreTheLargestThatTheFractionAllows) {
  const std::uint64_t full = sum(fit(std::size_t{1} << 34, {.device = "cuda:0"}));
  std::int64_t last = 0;
  for (const double fraction : {0.3, 0.5, 0.9, 1.0}) {
    const auto budget = static_cast<std::uint64_t>(fraction * static_cast<double>(full));
    auto limits = fit(full, {.device = "cuda:0", .mem_fraction = fraction});
    EXPECT_LE(sum(limits), budget);
    EXPECT_EQ(limits.max_seqlen, limits.max_tokens);
    EXPECT_GT(limits.max_tokens, last);
    last = limits.max_tokens;
    limits.max_tokens += 1024;
    limits.max_sequences = limits.max_tokens / 8;
    if (fraction < 1) {
      EXPECT_GT(sum(limits), budget) << "a larger batch would have fitted";
    }
  }
  EXPECT_EQ(last, 40960);
}

TEST(Limits, ThatAreAskedForStay) {
  const std::uint64_t full = sum(fit(std::size_t{1} << 34, {.device = "cuda:0"}));
  const auto limits = fit(full / 2, {.device = "cuda:0", .max_seqlen = 3000, .mem_fraction = 1});
  EXPECT_EQ(limits.max_seqlen, 3000);
  EXPECT_GE(limits.max_tokens, 3000);
  EXPECT_THAT(refusal(full / 2, {.device = "cuda:0", .max_batch_tokens = 40960}),
              HasSubstr("40960"));
}

TEST(Limits, ThatDoNotFitAreRefusedWithTheSum) {
  const std::string text = refusal(2'000'000, {.device = "cuda:0"});
  EXPECT_THAT(text, HasSubstr("2 MB are free on fake device"));
  EXPECT_THAT(text, HasSubstr("may take 1 MB"));
  EXPECT_THAT(text, HasSubstr("weights of 2 layers"));
  EXPECT_THAT(text, HasSubstr("page-locked host: slots"));
  EXPECT_THAT(text, HasSubstr("in all"));
  EXPECT_THAT(text, HasSubstr("on the device"));
  EXPECT_THAT(refusal(1 << 30, {.device = "cuda:0", .mem_fraction = 0}), HasSubstr("mem-fraction"));
}

struct Serving {
  Serving() {
    folder.write("config.json", model_config_json(kConfig));
    folder.write("tokenizer.json", "{}");
    write_synthetic_weights(folder.path(), kConfig, {.seed = 5, .type = TensorType::kFloat32});
    auto backend = std::make_unique<FakeDevice>();
    device = backend.get();
    engine = make_single_engine({.model_dir = folder.path(),
                                 .device = "cuda:0",
                                 .max_batch_tokens = 256,
                                 .measure_cost = false},
                                std::move(backend));
  }
  ScratchFolder folder;
  FakeDevice* device = nullptr;
  std::unique_ptr<Engine> engine;
};

TEST(Serving, TakesNoMemory) {
  const Serving s;
  const int taken = s.device->taken;
  EXPECT_GT(taken, 10);
  const std::size_t recorded = s.device->recorded.size();
  for (int len = 1; len < 60; len += 3) {
    embed(*s.engine, {Ids(static_cast<std::size_t>(len), 7), Ids(5, 9)}, len % 2);
  }
  EXPECT_EQ(s.device->taken, taken);
  EXPECT_EQ(s.device->recorded.size(), recorded);
}

TEST(Serving, BeginsWithEverySmallBatchRecordedOnEverySlot) {
  const Serving s;
  const std::vector<std::pair<std::int64_t, std::int64_t>> expected = {
      {8, 1}, {24, 4}, {8, 1}, {24, 4}, {8, 1}, {24, 4}};  // Two in turns, and the express one.
  EXPECT_EQ(s.device->recorded, expected);
}

TEST(ServingDeathTest, AnAllocationIsABug) {
  const Serving s;
  EXPECT_DEATH((void)s.device->allocate(16, "late"), "sealed_");
}

}  // namespace
}  // namespace tessera::worker
