#include "coordinator/core/jobs/job.hpp"

#include <gtest/gtest.h>

#include "coordinator/core/ledger/ledger.hpp"

namespace tessera::coordinator {
namespace {

const std::vector<ServedModel> kModels = {{.name = "m",
                                           .tokenizer_hash = "t",
                                           .hidden_size = 64,
                                           .max_seqlen = 100,
                                           .vocab_size = 1000,
                                           .query_prefix = {}}};

TEST(Job, RestoresWhatTheLedgerSays) {
  const ledger::StoredJob stored{.job = "id",
                                 .job_key = "key",
                                 .tenant = "t",
                                 .spec = ledger::encode_spec({.model = "m", .dimensions = 32}),
                                 .fingerprint = "f",
                                 .priority = 3,
                                 .state = protocol::JobState::kRunning,
                                 .closed = true,
                                 .chunks_total = 4,
                                 .accepted = {std::byte{0b11110000}},
                                 .done = {std::byte{0b11000000}},
                                 .delivered = {std::byte{0b10000000}}};
  const auto job = Job::restore(stored, kModels);
  ASSERT_TRUE(job.ok());
  EXPECT_EQ(job->resolved->dimensions, 32U);
  EXPECT_EQ(job->chunks.size(), 3U);
  EXPECT_EQ(job->ready, 1U);
  EXPECT_EQ(job->waiting, 2U);
  EXPECT_EQ(job->chunks.at(1).stage, Chunk::Stage::kReady);
  EXPECT_FALSE(job->all_delivered());
  EXPECT_EQ(job->progress().chunks_delivered, 1U);
  EXPECT_EQ(job->progress().chunks_total, 4U);
}

TEST(Job, ASpecificationThatIsNotServedAnyMoreIsAnError) {
  const ledger::StoredJob other{.job = "id", .spec = ledger::encode_spec({.model = "gone"})};
  EXPECT_FALSE(Job::restore(other, kModels).ok());
  EXPECT_FALSE(Job::restore({.job = "id", .spec = "damaged"}, kModels).ok());
}

TEST(Job, CountsChunksByStage) {
  Job job;
  Chunk& chunk = job.chunks[0];
  chunk.items_count = 5;
  using Stage = Chunk::Stage;
  const std::tuple<Stage, std::uint32_t, std::uint32_t, std::uint32_t, std::uint64_t> steps[] = {
      {Stage::kWaiting, 1, 0, 0, 0},        {Stage::kFetchingItems, 0, 0, 0, 5},
      {Stage::kWaiting, 1, 0, 0, 0},        {Stage::kActive, 0, 0, 0, 5},
      {Stage::kStoring, 0, 0, 0, 0},        {Stage::kReady, 0, 1, 0, 0},
      {Stage::kSent, 0, 0, 1, 0},           {Stage::kReady, 0, 1, 0, 0},
      {Stage::kFetchingResult, 0, 0, 1, 0}, {Stage::kSent, 0, 0, 1, 0},
      {Stage::kAcking, 0, 0, 0, 0}};
  for (const auto& [stage, waiting, ready, sent, active] : steps) {
    job.move(chunk, stage);
    EXPECT_EQ(job.waiting, waiting);
    EXPECT_EQ(job.ready, ready);
    EXPECT_EQ(job.sent, sent);
    EXPECT_EQ(job.active_items, active);
  }
}

TEST(Ledger, EntriesSurviveAndDamagedOnesAreErrors) {
  protocol::SubmitChunk chunk{.job_id = "j", .chunk = 3, .items = {}};
  chunk.items.sizes = {2, 1};
  chunk.items.payload = {std::byte{'a'}, std::byte{'b'}, std::byte{'c'}};
  const protocol::Bytes content = ledger::journal_chunk(chunk);
  const auto back = ledger::read_chunk(content);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->items.sizes, chunk.items.sizes);
  EXPECT_EQ(back->items.payload, chunk.items.payload);
  for (std::size_t i = 0; i < content.size(); ++i) {
    EXPECT_FALSE(ledger::read_chunk(std::span(content).first(i)).ok()) << i;
  }
  EXPECT_FALSE(ledger::read_result(content).ok()) << "of another kind";

  protocol::ChunkResult result{.job_id = "j", .chunk = 3, .results = {}};
  result.results.codes = {0, 6};
  result.results.errors = {{1, "empty"}};
  result.results.dimensions = 1;
  result.results.payload = chunk.items.payload;
  const auto read = ledger::read_result(ledger::journal_result(result));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->results.codes, result.results.codes);
  EXPECT_EQ(read->results.errors, result.results.errors);
  EXPECT_EQ(read->results.payload, result.results.payload);
}

TEST(Ledger, JobIdsAreStableAndTellTenantsApart) {
  EXPECT_EQ(ledger::job_id_of("t", "k"), ledger::job_id_of("t", "k"));
  EXPECT_NE(ledger::job_id_of("t", "k"), ledger::job_id_of("tk", ""));
  EXPECT_NE(ledger::job_id_of("a", "k"), ledger::job_id_of("b", "k"));
  EXPECT_EQ(ledger::job_id_of("", "k").size(), 32U);
}

}  // namespace
}  // namespace tessera::coordinator
