#include "coordinator/core/jobs/job_table.hpp"

#include <gtest/gtest.h>

namespace tessera::coordinator {
namespace {

using Stage = Chunk::Stage;
using protocol::JobState;

Job job_of(const JobId& id, JobState state = JobState::kOpen, bool end_durable = false) {
  Job job;
  job.id = id;
  job.state = state;
  job.end_durable = end_durable;
  job.created = true;
  return job;
}

TEST(JobTable, FindsAChunkInTheStageThatIsAskedForOnly) {
  JobTable table;
  Job& job = table.add(job_of("a"));
  job.chunks[3].stage = Stage::kStoring;

  const ChunkPlace place = table.chunk_in(Stage::kStoring, "a", 3);
  ASSERT_TRUE(place);
  EXPECT_EQ(place.job, &job);
  EXPECT_EQ(place.chunk, &job.chunks.at(3));
  EXPECT_FALSE(table.chunk_in(Stage::kReady, "a", 3)) << "another stage";
  EXPECT_EQ(table.chunk_in(Stage::kReady, "a", 3).job, nullptr);
  EXPECT_FALSE(table.chunk_in(Stage::kStoring, "a", 4)) << "no such chunk";
  EXPECT_FALSE(table.chunk_in(Stage::kStoring, "b", 3)) << "no such job";
  EXPECT_TRUE(table.chunk("a", 3)) << "whatever its stage";
}

TEST(JobTable, AJobRunsUntilItsEndIsDurable) {
  JobTable table;
  Job& first = table.add(job_of("a"));
  table.add(job_of("b", JobState::kDone, true));
  EXPECT_EQ(table.running().size(), 1U);
  EXPECT_EQ(table.ended(), 1U);
  EXPECT_EQ(table.oldest_ended()->id, "b");
  first.end_durable = true;
  table.retire(first);
  EXPECT_TRUE(table.running().empty());
  EXPECT_EQ(table.ended(), 2U);
  EXPECT_EQ(table.find("a"), &first);
}

TEST(JobTable, TheOldestIsForgottenOrComesFirstAgain) {
  JobTable table;
  table.add(job_of("a", JobState::kDone, true));
  table.add(job_of("b", JobState::kDone, true));
  table.pass_over_oldest();
  EXPECT_EQ(table.oldest_ended()->id, "b");
  table.put_back("a");
  EXPECT_EQ(table.oldest_ended()->id, "a");
  table.pass_over_oldest();
  table.remove("a");
  EXPECT_EQ(table.find("a"), nullptr);
  EXPECT_EQ(table.size(), 1U);
  table.pass_over_oldest();
  EXPECT_EQ(table.oldest_ended(), nullptr);
}

TEST(JobTable, ListsOpenJobsFirst) {
  JobTable table;
  table.add(job_of("a", JobState::kDone, true));
  table.add(job_of("b"));
  table.add(job_of("c")).created = false;
  const auto list = table.progress(10);
  ASSERT_EQ(list.size(), 2U) << "one is not in the ledger yet";
  EXPECT_EQ(list[0].job_id, "b");
  EXPECT_EQ(list[1].job_id, "a");
  EXPECT_EQ(table.progress(1).size(), 1U);
}

}  // namespace
}  // namespace tessera::coordinator
