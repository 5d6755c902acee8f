#include "coordinator/core/jobs/client_credit.hpp"

#include <gtest/gtest.h>

namespace tessera::coordinator {
namespace {

Job job_of(const std::string& client, std::uint32_t sent) {
  Job job;
  job.peer = client;
  job.sent = sent;
  return job;
}

TEST(ClientCredit, IsSharedByAClientsJobsAndNotByClients) {
  ClientCredit credit(100);
  Job one = job_of("client", 1);
  Job two = job_of("client", 1);
  Job other = job_of("another", 1);
  Chunk chunk;
  credit.take(one, chunk, 80);
  EXPECT_EQ(credit.taken_by("client"), 80U);
  EXPECT_TRUE(credit.allows(two, 20));
  EXPECT_FALSE(credit.allows(two, 21));
  EXPECT_TRUE(credit.allows(other, 100));
  EXPECT_EQ(credit.taken_by("another"), 0U);
}

TEST(ClientCredit, OneResultOfEachJobAlwaysGoes) {
  ClientCredit credit(100);
  Job full = job_of("client", 1);
  Job none_sent = job_of("client", 0);
  Chunk chunk;
  credit.take(full, chunk, 1000);
  EXPECT_FALSE(credit.allows(full, 1));
  EXPECT_TRUE(credit.allows(none_sent, 1'000'000));
}

TEST(ClientCredit, TakingAgainReplacesAndGivingBackTwiceIsOnce) {
  ClientCredit credit(100);
  Job job = job_of("client", 1);
  Chunk guessed;
  Chunk other;
  credit.take(job, guessed, 50);
  credit.take(job, other, 7);
  credit.take(job, guessed, 30);
  EXPECT_EQ(credit.taken_by("client"), 37U);
  EXPECT_EQ(guessed.sent_bytes, 30U);
  credit.give_back(job, guessed);
  credit.give_back(job, guessed);
  EXPECT_EQ(credit.taken_by("client"), 7U);
  credit.give_back(job, other);
  EXPECT_EQ(credit.taken_by("client"), 0U);
}

}  // namespace
}  // namespace tessera::coordinator
