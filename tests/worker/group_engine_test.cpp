// A group of ranks against one device, over threads and host memory: every split, every group size.

#include "worker/group/group_engine.hpp"

#include <gmock/gmock.h>

#include <array>
#include <atomic>
#include <random>

#include "common/model/synthetic_model.hpp"
#include "tests/common/model/scratch_folder.hpp"
#include "tests/support/host_backend.hpp"
#include "tests/worker/embed_helpers.hpp"
#include "worker/create_engine.hpp"

namespace tessera::worker {
namespace {

using kernels::DType;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Nothing here hangs: ranks that a sanitizer or a busy machine makes slow are no failure.
constexpr int kStandstillS = 600;

// Eight key-value heads, so that it splits over eight ranks.
class GroupEngine : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<ScratchFolder>();
    const ModelConfig config{.hidden_size = 64,
                             .num_hidden_layers = 2,
                             .intermediate_size = 192,
                             .num_attention_heads = 16,
                             .num_key_value_heads = 8,
                             .head_dim = 128,
                             .vocab_size = 512,
                             .max_position_embeddings = 4096,
                             .tie_word_embeddings = true,
                             .torch_dtype = "float32"};
    folder_->write("config.json", model_config_json(config));
    folder_->write("tokenizer.json", "{}");
    write_synthetic_weights(folder_->path(), config, {.seed = 5, .type = TensorType::kFloat32});
    expected_ = std::make_unique<std::vector<std::vector<float>>>(
        embed(*create_engine(options()), sequences()));
  }
  static void TearDownTestSuite() {
    folder_.reset();
    expected_.reset();
  }

  static EngineOptions options(std::optional<GroupSplit> split = {}, int ranks = 1) {
    return {.model_dir = folder_->path(),
            .tp = std::to_string(ranks),
            .split = split,
            .threads = 1,
            .max_batch_tokens = 8192,
            .max_seqlen = 1200,
            .weight_type = DType::kFloat32,
            .measure_cost = false,
            .piece_s = 1};  // Cut after every step.
  }

  // Long ones that are cut between ranks, and short ones around the size of a piece.
  static std::vector<Ids> sequences() {
    std::mt19937 random(3);
    std::vector<Ids> all;
    for (const int len : {300, 1, 129, 30, 400, 2, 64, 256}) {
      Ids ids(static_cast<std::size_t>(len));
      for (std::int32_t& id : ids) id = static_cast<std::int32_t>(random() % 512);
      all.push_back(ids);
    }
    return all;
  }

  using MakeBackend = std::function<std::unique_ptr<kernels::Backend>(int)>;
  static std::unique_ptr<Engine> group(
      GroupSplit split, int ranks, bool halves = false,
      MakeBackend make = [](int) { return std::make_unique<testing::HostBackend>(); }) {
    GroupParts parts{.names = std::vector<std::string>(static_cast<std::size_t>(ranks), "host"),
                     .make_backend = std::move(make),
                     .communicators = kernels::make_thread_communicators(ranks),
                     .halves = halves,
                     .standstill_s = kStandstillS};
    return make_group_engine(options(split, ranks), std::move(parts));
  }

  static void expect_near(const std::vector<std::vector<float>>& vectors) {
    ASSERT_EQ(vectors.size(), expected_->size());
    for (std::size_t i = 0; i < vectors.size(); ++i) {
      EXPECT_LE(largest_difference(vectors[i], (*expected_)[i]), 2e-6) << i;
    }
  }

  static inline std::unique_ptr<ScratchFolder> folder_;
  static inline std::unique_ptr<std::vector<std::vector<float>>> expected_;
};

TEST_F(GroupEngine, SplitWeightsGiveTheVectorsOfOneDevice) {
  for (const int ranks : {2, 4, 8}) {
    const auto engine = group(GroupSplit::kTensor, ranks);
    EXPECT_EQ(engine->info().group_size, ranks);
    expect_near(embed(*engine, sequences()));
  }
}

TEST_F(GroupEngine, SplitTokensGiveTheVectorsOfOneDevice) {
  for (const int ranks : {2, 4, 8}) {
    const auto engine = group(GroupSplit::kTokens, ranks);
    expect_near(embed(*engine, sequences()));
    // One sequence alone, in as many pieces as it makes; one that leaves most ranks without work.
    for (const std::size_t i : {0U, 4U, 1U}) {
      const auto alone = embed(*engine, {sequences()[i]});
      EXPECT_LE(largest_difference(alone[0], (*expected_)[i]), 2e-6) << i;
    }
  }
}

// Long enough for a cheap early and an expensive late piece on each rank.
TEST_F(GroupEngine, PairedPiecesOfALongSequence) {
  Ids ids(1100);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i * 7 % 512);
  const auto alone = embed(*create_engine(options()), {ids});
  const auto cut = embed(*group(GroupSplit::kTokens, 2), {ids});
  EXPECT_LE(largest_difference(alone[0], cut[0]), 2e-6);
}

TEST_F(GroupEngine, HalvesOfABatchTakeTurns) {
  std::vector<Ids> many;
  for (int i = 0; i < 22; ++i) many.push_back(sequences()[i % 2 == 0 ? 7 : 2]);
  ASSERT_GT(halve_batch(pack(many).cu_seqlens, 1e-4), 0);
  const auto engine = group(GroupSplit::kTensor, 2, /*halves=*/true);
  const auto vectors = embed(*engine, many);
  for (std::size_t i = 0; i < many.size(); ++i) {
    EXPECT_LE(largest_difference(vectors[i], (*expected_)[i % 2 == 0 ? 7 : 2]), 2e-6) << i;
  }
}

TEST_F(GroupEngine, TheSameBatchTwiceIsBitIdenticalWithBothSlotsInFlight) {
  for (const GroupSplit split : {GroupSplit::kTensor, GroupSplit::kTokens}) {
    const auto engine = group(split, 4);
    const Packed first = pack(sequences());
    const Packed second = pack({sequences()[4], sequences()[0]});
    engine->enqueue(0, first.view());
    engine->enqueue(1, second.view());
    engine->wait(0);
    const std::vector<float> vectors(engine->vectors(0).begin(), engine->vectors(0).end());
    engine->enqueue(0, first.view());
    engine->wait(1);
    EXPECT_LE(largest_difference({engine->vectors(1).begin(), engine->vectors(1).begin() + 64},
                                 (*expected_)[4]),
              2e-6);
    engine->wait(0);
    EXPECT_TRUE(std::ranges::equal(engine->vectors(0), vectors));
  }
}

TEST_F(GroupEngine, AnExpressBatchOvertakesOnAllRanks) {
  const std::vector<Ids> express = {sequences()[6], sequences()[1], sequences()[0]};
  for (const GroupSplit split : {GroupSplit::kTensor, GroupSplit::kTokens}) {
    const auto engine = group(split, 2);
    expect_same_bits_overtaken(*engine, sequences(), express, {1, 6});
    expect_same_bits_overtaken(*engine, {sequences()[4]}, {sequences()[0]});  // All ranks or one.
  }
  const auto halves = group(GroupSplit::kTensor, 2, /*halves=*/true);
  std::vector<Ids> many;
  for (int i = 0; i < 22; ++i) many.push_back(sequences()[i % 2 == 0 ? 7 : 2]);
  expect_same_bits_overtaken(*halves, many, express, {5});
}

TEST_F(GroupEngine, TheCpuBackendSplitsWeightsToo) {
  for (const int ranks : {2, 4}) {
    const auto engine = create_engine(options({}, ranks));
    expect_near(embed(*engine, sequences()));
    EXPECT_EQ(engine->info().device, std::to_string(ranks) + " x " +
                                         create_engine(options())->info().device +
                                         ", weights split over threads");
  }
}

std::string failure_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const FatalError& error) {
    return error.what();
  }
  return "no failure";
}

TEST_F(GroupEngine, RefusesHeadsThatDoNotDivide) {
  EngineOptions demo = options({}, 4);
  demo.model_dir = "deploy/data/demo-model";
  EXPECT_THAT(failure_of([&] { create_engine(demo); }),
              HasSubstr("2 key-value heads do not divide by 4"));
}

// Ranks that must run alone before they run together, as GPUs must.
class RehearsingCommunicator final : public kernels::Communicator {
 public:
  RehearsingCommunicator(std::unique_ptr<kernels::Communicator> real, std::atomic<int>& skipped)
      : real_(std::move(real)), skipped_(skipped) {}
  int rank() const override { return real_->rank(); }
  int size() const override { return real_->size(); }
  std::unique_ptr<kernels::Buffer> allocate(std::size_t bytes, std::string_view what) override {
    return real_->allocate(bytes, what);
  }
  void reduce_add(const ReduceAdd& operation, int lane) override {
    if (rehearsing_) {
      ++skipped_;
    } else {
      real_->reduce_add(operation, lane);
    }
  }
  void wait(int lane) override {
    if (!rehearsing_) real_->wait(lane);
  }
  void stage_rows(int slot, std::span<const std::int32_t> kv_rows) override {
    real_->stage_rows(slot, kv_rows);
  }
  void gather_rows(const GatherRows& operation) override { real_->gather_rows(operation); }
  bool needs_rehearsal() const override { return true; }
  void rehearse(bool on) override { rehearsing_ = on; }

 private:
  std::unique_ptr<kernels::Communicator> real_;
  std::atomic<int>& skipped_;
  bool rehearsing_ = false;
};

class RehearsingCommunicators final : public kernels::CommunicatorGroup {
 public:
  RehearsingCommunicators(int size, std::atomic<int>& skipped)
      : real_(kernels::make_thread_communicators(size)), skipped_(skipped) {}
  int size() const override { return real_->size(); }
  std::string_view transport() const override { return real_->transport(); }
  std::unique_ptr<kernels::Communicator> join(int rank, kernels::Backend& backend,
                                              const kernels::BatchLimits& limits,
                                              int slots) override {
    return std::make_unique<RehearsingCommunicator>(real_->join(rank, backend, limits, slots),
                                                    skipped_);
  }
  void abort() override { real_->abort(); }
  std::uint64_t progress(int rank) const override { return real_->progress(rank); }

 private:
  std::unique_ptr<kernels::CommunicatorGroup> real_;
  std::atomic<int>& skipped_;
};

TEST_F(GroupEngine, RanksRehearseAloneAndThenGiveTheVectorsOfOneDevice) {
  for (const GroupSplit split : {GroupSplit::kTensor, GroupSplit::kTokens}) {
    std::atomic<int> skipped = 0;
    EngineOptions small = options(split, 2);
    small.max_batch_tokens = small.max_seqlen = 160;
    const auto engine = make_group_engine(
        small, {.names = {"host", "host"},
                .make_backend = [](int) { return std::make_unique<testing::HostBackend>(); },
                .communicators = std::make_unique<RehearsingCommunicators>(2, skipped),
                .standstill_s = kStandstillS});
    const int rehearsed = skipped;
    EXPECT_EQ(rehearsed > 0, split == GroupSplit::kTensor);
    for (const std::size_t i : {2U, 1U, 3U}) {
      const auto alone = embed(*engine, {sequences()[i]});
      EXPECT_LE(largest_difference(alone[0], (*expected_)[i]), 2e-6) << i;
    }
    EXPECT_EQ(skipped, rehearsed);
  }
}

// Notes what is recorded, on a host that runs it as well.
class RecordingBackend final : public testing::HostBackend {
 public:
  explicit RecordingBackend(std::vector<kernels::RecordedSize>& recorded) : recorded_(recorded) {}
  static std::vector<kernels::RecordedSize> sizes(bool parts) {
    using enum kernels::BatchKind;
    std::vector<kernels::RecordedSize> all = {{8, 1}, {24, 4}};
    if (parts) all.insert(all.end(), {{16, 1, kParts}, {24, 1, kParts}, {16, 1, kPartsWithoutEnd}});
    return all;
  }
  std::unique_ptr<BatchSlot> make_slot(const kernels::BatchLimits& limits,
                                       const kernels::EncoderShape& shape) override {
    parts_ = limits.parts;
    return HostBackend::make_slot(limits, shape);
  }
  std::vector<kernels::RecordedSize> recorded_sizes() const override { return sizes(parts_); }
  void record(bool on) override { recording_ = on; }
  Start begin(BatchSlot& slot, const kernels::PackedBatchView& batch) override {
    if (recording_)
      recorded_.push_back({batch.total_tokens(), batch.num_sequences(), batch.kind()});
    return HostBackend::begin(slot, batch);
  }

 private:
  std::vector<kernels::RecordedSize>& recorded_;
  bool parts_ = false;
  bool recording_ = false;
};

TEST_F(GroupEngine, EveryRankRecordsAllThatItsDeviceRecordsBeforeTheFirstBatch) {
  for (const GroupSplit split : {GroupSplit::kTokens, GroupSplit::kTensor}) {
    std::array<std::vector<kernels::RecordedSize>, 2> recorded;
    const auto engine = group(split, 2, false, [&](int rank) {
      return std::make_unique<RecordingBackend>(recorded[static_cast<std::size_t>(rank)]);
    });
    std::vector<kernels::RecordedSize> expected;
    for (int slot = 0; slot <= engine->slots(); ++slot) {
      for (const auto& size : RecordingBackend::sizes(split == GroupSplit::kTokens)) {
        expected.push_back(size);
      }
    }
    EXPECT_THAT(recorded, ::testing::Each(expected));
    expect_near(embed(*engine, sequences()));
    EXPECT_THAT(recorded, ::testing::Each(expected)) << "while serving";
  }
}

// Fails, or hangs until it is let go, in one of its operations.
class BrokenBackend final : public testing::HostBackend {
 public:
  BrokenBackend(std::function<void()> fault) : fault_(std::move(fault)) {}
  void swiglu_projection(Buffer& out, Buffer& x, LinearWeight& weight, std::int64_t rows,
                         const RowNorm& norm) override {
    if (++calls_ == 2) fault_();
    HostBackend::swiglu_projection(out, x, weight, rows, norm);
  }

 private:
  std::function<void()> fault_;
  int calls_ = 0;
};

TEST_F(GroupEngine, AFailingRankEndsTheGroupWithItsNameAndCause) {
  const auto engine = group(GroupSplit::kTensor, 4, false, [](int rank) {
    return rank == 2 ? std::make_unique<BrokenBackend>([] { throw FatalError("a bus error"); })
                     : std::make_unique<testing::HostBackend>();
  });
  EXPECT_EQ(failure_of([&] { embed(*engine, sequences()); }), "rank 2 of 4 (host): a bus error");
}

TEST(ChooseSplit, SaysWhy) {
  EXPECT_EQ(choose_split({.ranks = 4}).split, GroupSplit::kTokens);
  const SplitChoice tight = choose_split({.ranks = 4, .whole_fits = false});
  EXPECT_EQ(tight.split, GroupSplit::kTensor);
  EXPECT_THAT(tight.reason, HasSubstr("do not fit"));
  EXPECT_EQ(choose_split({.asked = GroupSplit::kTensor}).split, GroupSplit::kTensor);
  EXPECT_EQ(choose_split({.gathers = false}).split, GroupSplit::kTensor);
  EXPECT_THROW(choose_split({.asked = GroupSplit::kTokens, .gathers = false}), FatalError);
}

TEST(HalveBatch, CutsWhereTheCostIsEvenOrNotAtAll) {
  const auto lens = [](const std::vector<std::int32_t>& seqlens) {
    Ids sums{0};
    for (const std::int32_t n : seqlens) sums.push_back(sums.back() + n);
    return sums;
  };
  EXPECT_EQ(halve_batch(lens(std::vector<std::int32_t>(64, 256)), 1e-4), 32);
  EXPECT_EQ(halve_batch(lens({8192}), 1e-4), 0);
  EXPECT_EQ(halve_batch(lens({8192, 512, 512}), 1e-4), 0);
  EXPECT_EQ(halve_batch(lens({4096, 4096, 64}), 1e-4), 1);
  EXPECT_EQ(halve_batch(lens({64, 64}), 1e-4), 0);
}

}  // namespace
}  // namespace tessera::worker
