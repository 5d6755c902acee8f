#include "coordinator/core/scheduling/scheduler.hpp"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

namespace tessera::coordinator {
namespace {

using protocol::Lane;

constexpr Micros kSecond = 1'000'000;

// Owns the flights that a test queues.
class Queue {
 public:
  Flight* add(std::uint32_t length, Lane lane = Lane::kBulk, const std::string& tenant = "",
              const std::string& job = "j", double weight = 1, Micros now = 0) {
    auto flight = std::make_unique<Flight>();
    flight->ids.assign(length, 1);
    flight->lane = lane;
    flight->stream = {.tenant = tenant, .job = job};
    flight->weight = weight;
    flights_.push_back(std::move(flight));
    scheduler.add(flights_.back().get(), now);
    return flights_.back().get();
  }
  Scheduler scheduler;

 private:
  std::vector<std::unique_ptr<Flight>> flights_;
};

WorkerCapacity worker(std::uint32_t budget = 100) {
  return {.max_batch_tokens = budget, .max_batch_sequences = 64, .max_seqlen = budget};
}

// Takes all that its time allows: 0.1 s is 1,000 tokens.
WorkerCapacity timed_worker() {
  WorkerCapacity timed = worker(100'000);
  timed.max_batch_sequences = 10'000;
  timed.cost.per_token_s = 1e-4;
  return timed;
}

std::vector<std::uint32_t> lengths(const std::vector<Flight*>& batch) {
  std::vector<std::uint32_t> result;
  for (const Flight* flight : batch) {
    result.push_back(flight->length());
  }
  return result;
}

TEST(Scheduler, FillsTheBudgetLongestFirst) {
  struct Case {
    std::vector<std::uint32_t> waiting;
    WorkerCapacity worker;
    std::vector<std::uint32_t> expected;
  };
  WorkerCapacity two_sequences = worker();
  two_sequences.max_batch_sequences = 2;
  WorkerCapacity short_only = worker();
  short_only.max_seqlen = 40;
  WorkerCapacity prefers_short = worker();
  prefers_short.preferred = {.min = 0, .max = 30};
  WorkerCapacity busy_prefers_short = prefers_short;
  busy_prefers_short.batches_in_flight = 1;
  WorkerCapacity prefers_long = worker();
  prefers_long.preferred = {.min = 50, .max = 1000};
  const Case cases[] = {
      {{10, 60, 30}, worker(), {60, 30, 10}},
      {{60, 60, 30}, worker(), {60, 30}},
      {{100, 1}, worker(), {100}},
      {{101}, worker(), {}},
      {{101, 5}, worker(), {5}},
      {{50, 20, 10}, two_sequences, {50, 20}},
      {{50, 20, 10}, short_only, {20, 10}},
      {{50, 20, 10}, prefers_short, {20, 10}},
      {{50, 40}, prefers_short, {50, 40}},  // Idle: takes what waits.
      {{50, 40}, busy_prefers_short, {}},   // Has work: leaves it to others.
      {{50, 20, 70}, prefers_long, {70}},
      {{}, worker(), {}},
  };
  for (const Case& c : cases) {
    Queue queue;
    for (const std::uint32_t length : c.waiting) {
      queue.add(length);
    }
    EXPECT_EQ(lengths(queue.scheduler.pick(c.worker, 0)), c.expected);
  }
}

TEST(Scheduler, LongestFirstIsAmongNeighboursInArrivalOnly) {
  Queue queue;
  Flight* short_and_old = queue.add(1);
  for (int i = 0; i < 2000; ++i) {
    queue.add(100);  // 200,000 tokens, as a job that never pauses would bring.
  }
  int batches = 1;
  while (short_and_old->stage == Flight::Stage::kWaiting) {
    queue.scheduler.pick(worker(1000), 0);
    ++batches;
  }
  EXPECT_LT(batches, 40);
}

TEST(Scheduler, SharesWhatWaitsAmongFreeSlots) {
  Queue queue;
  for (int i = 0; i < 400; ++i) {
    queue.add(10);
  }
  WorkerCapacity big = worker(100'000);
  big.max_batch_sequences = 10'000;
  big.free_slots_of_model = 4;
  EXPECT_EQ(queue.scheduler.pick(big, 0).size(), 100U);
  big.free_slots_of_model = 1;
  EXPECT_EQ(queue.scheduler.pick(big, 0).size(), 300U);
}

TEST(Scheduler, BoundsABulkBatchInTimeButNotBelowWhatIsEfficient) {
  Queue queue;
  for (int i = 0; i < 1000; ++i) {
    queue.add(10);
  }
  WorkerCapacity timed = timed_worker();
  queue.add(7, Lane::kInteractive);
  EXPECT_EQ(queue.scheduler.pick(timed, 0).front()->length(), 7U);
  EXPECT_EQ(queue.scheduler.pick(timed, 0).size(), 100U);
  timed.cost.fixed_s = 0.05;  // Efficient from 4 * 0.05 / 1e-4 = 2,000 tokens.
  EXPECT_EQ(queue.scheduler.pick(timed, 0).size(), 200U);
}

TEST(Scheduler, BulkBatchesAreLongerWhereNobodyAsks) {
  Queue queue;
  for (int i = 0; i < 2000; ++i) {
    queue.add(10);
  }
  const WorkerCapacity timed = timed_worker();
  EXPECT_EQ(queue.scheduler.pick(timed, 0).size(), 200U);
  queue.add(7, Lane::kInteractive);
  const auto aged = queue.scheduler.pick(timed, kSecond);  // The query waits behind it.
  EXPECT_EQ(aged.front()->lane, Lane::kBulk);
  EXPECT_EQ(aged.size(), 100U);
  EXPECT_EQ(queue.scheduler.pick(timed, kSecond).front()->lane, Lane::kInteractive);
  EXPECT_EQ(queue.scheduler.pick(timed, 2 * kSecond).size(), 100U);
  EXPECT_EQ(queue.scheduler.pick(timed, 60 * kSecond).size(), 100U);
  EXPECT_EQ(queue.scheduler.pick(timed, 61 * kSecond).size(), 200U);
}

TEST(Scheduler, QueriesGoFirstInTheirOrderWithBulkAsBallast) {
  Queue queue;
  queue.add(20);
  queue.add(50);
  queue.add(5, Lane::kInteractive);
  queue.add(30, Lane::kInteractive);
  EXPECT_EQ(lengths(queue.scheduler.pick(worker(), 0)), (std::vector<std::uint32_t>{5, 30, 50}));
}

TEST(Scheduler, AgedBulkGoesBeforeQueries) {
  Queue queue;
  queue.add(90, Lane::kBulk);
  for (int i = 0; i < 50; ++i) {
    queue.add(95, Lane::kInteractive);
  }
  EXPECT_EQ(queue.scheduler.pick(worker(), kSecond / 2).front()->lane, Lane::kInteractive);
  EXPECT_EQ(queue.scheduler.pick(worker(), kSecond).front()->lane, Lane::kBulk);
  EXPECT_EQ(queue.scheduler.pick(worker(), 3 * kSecond).front()->lane, Lane::kInteractive);
}

TEST(Scheduler, BulkNeverStarvesUnderAStreamOfQueries) {
  Queue queue;
  for (int i = 0; i < 10; ++i) {
    queue.add(90, Lane::kBulk);
  }
  int bulk = 0;
  for (int turn = 0; turn < 300; ++turn) {
    queue.add(95, Lane::kInteractive);
    queue.add(95, Lane::kInteractive);
    const auto batch = queue.scheduler.pick(worker(), turn * kSecond / 10);
    bulk += batch.front()->lane == Lane::kBulk ? 1 : 0;
  }
  EXPECT_EQ(bulk, 10);
}

// Tokens that each stream got while all had enough waiting.
std::map<std::string, double> served(Queue& queue, int batches, bool by_tenant) {
  std::map<std::string, double> tokens;
  for (int i = 0; i < batches; ++i) {
    for (const Flight* flight : queue.scheduler.pick(worker(), 0)) {
      tokens[by_tenant ? flight->stream.tenant : flight->stream.job] += flight->length();
    }
  }
  return tokens;
}

TEST(Scheduler, JobsOfATenantShareByWeightInTokens) {
  Queue queue;
  for (int i = 0; i < 2000; ++i) {
    queue.add(10, Lane::kBulk, "t", "light", 1);
    queue.add(20, Lane::kBulk, "t", "heavy", 3);
  }
  auto tokens = served(queue, 100, false);
  EXPECT_NEAR(tokens["heavy"] / tokens["light"], 3.0, 0.2);
}

TEST(Scheduler, TenantsShareEquallyHoweverManyJobsTheyHave) {
  Queue queue;
  for (int i = 0; i < 1000; ++i) {
    queue.add(10, Lane::kBulk, "one", "a");
    for (const char* job : {"b", "c", "d", "e"}) {
      queue.add(10, Lane::kBulk, "many", job, 100);
    }
  }
  auto tokens = served(queue, 100, true);
  EXPECT_NEAR(tokens["one"] / tokens["many"], 1.0, 0.05);
}

TEST(Scheduler, ComingBackAfterAPauseSavesUpNoCredit) {
  Queue queue;
  for (int i = 0; i < 1000; ++i) {
    queue.add(10, Lane::kBulk, "steady", "a");
  }
  served(queue, 50, true);
  for (int i = 0; i < 500; ++i) {
    queue.add(10, Lane::kBulk, "late", "b");
  }
  auto tokens = served(queue, 20, true);
  EXPECT_NEAR(tokens["late"] / tokens["steady"], 1.0, 0.2);
}

TEST(Scheduler, ItemsOfADeadWorkerGoFirstAndAloneAfterTwo) {
  Queue queue;
  Flight* once = queue.add(10);
  Flight* twice = queue.add(10);
  queue.scheduler.pick(worker(), 0);
  queue.add(50);
  once->deaths = 1;
  once->losses.resize(1);
  twice->deaths = 2;
  twice->losses.resize(2);
  queue.scheduler.add_again(once, 1);
  queue.scheduler.add_again(twice, 1);
  WorkerCapacity busy = worker();
  busy.batches_in_flight = 1;
  const auto first = queue.scheduler.pick(busy, 1);
  EXPECT_EQ(first.front(), once);
  EXPECT_EQ(lengths(first), (std::vector<std::uint32_t>{10, 50}));
  EXPECT_TRUE(queue.scheduler.pick(busy, 1).empty()) << "only an idle worker runs it alone";
  queue.add(5);
  EXPECT_EQ(queue.scheduler.pick(worker(), 1), std::vector<Flight*>{twice});
}

TEST(Scheduler, AQueryThatJoinsLiftsAWaitingItem) {
  Queue queue;
  queue.add(90);
  Flight* joined = queue.add(10);
  queue.scheduler.make_interactive(joined, {.tenant = "t", .job = ""});
  EXPECT_EQ(queue.scheduler.waiting_items(), 2U);
  EXPECT_EQ(queue.scheduler.waiting_tokens(), 100U);
  EXPECT_EQ(lengths(queue.scheduler.pick(worker(), 0)), (std::vector<std::uint32_t>{10, 90}));
  EXPECT_EQ(queue.scheduler.waiting_items(), 0U);
}

TEST(Scheduler, WithdrawnItemsAreGone) {
  Queue queue;
  Flight* a = queue.add(10);
  Flight* b = queue.add(20, Lane::kInteractive);
  queue.scheduler.remove(a);
  queue.scheduler.remove(b);
  EXPECT_EQ(queue.scheduler.waiting_items(), 0U);
  EXPECT_TRUE(queue.scheduler.pick(worker(), 0).empty());
}

TEST(Scheduler, GivesUpOnlyOldItemsThatNobodyTakes) {
  Queue queue;
  Flight* old = queue.add(80, Lane::kBulk, "", "j", 1, 0);
  queue.add(80, Lane::kBulk, "", "j", 1, 100);
  queue.add(20, Lane::kBulk, "", "j", 1, 0);
  EXPECT_EQ(queue.scheduler.take_unservable(50, 50), std::vector<Flight*>{old});
  EXPECT_EQ(queue.scheduler.waiting_items(), 2U);
}

TEST(Scheduler, StoppedBulkStaysAndQueriesGo) {
  Queue queue;
  queue.add(10);
  queue.add(20, Lane::kInteractive);
  queue.scheduler.stop_bulk();
  EXPECT_EQ(lengths(queue.scheduler.pick(worker(), 0)), std::vector<std::uint32_t>{20});
  EXPECT_TRUE(queue.scheduler.pick(worker(), 10 * kSecond).empty());
}

TEST(FairLane, ServesThousandsOfTenantsInTurns) {
  FairLane lane(true);
  std::vector<std::unique_ptr<Flight>> flights;
  constexpr int kTenants = 20'000;
  for (int i = 0; i < 2 * kTenants; ++i) {
    auto flight = std::make_unique<Flight>();
    flight->ids.assign(10, 1);
    flight->order = static_cast<std::uint64_t>(i) + 1;
    flight->stream = {.tenant = std::to_string(i % kTenants), .job = {}};
    lane.add(flight.get());
    flights.push_back(std::move(flight));
  }
  for (const std::uint64_t round : {0U, 1U}) {
    for (int i = 0; i < kTenants; ++i) {
      const Flight* taken = lane.take({.min = 0, .max = 100});
      ASSERT_NE(taken, nullptr);
      ASSERT_EQ((taken->order - 1) / kTenants, round) << "everybody's first before any second";
    }
  }
  EXPECT_TRUE(lane.empty());
}

// A worker with an express slot of 20 tokens that has something to do.
WorkerCapacity busy_express_worker() {
  WorkerCapacity busy = worker();
  busy.express_tokens = 20;
  busy.batches_in_flight = 1;
  return busy;
}

TEST(Scheduler, LeavesQueriesToAnExpressBatchWhereTheWorkerIsBusy) {
  Queue queue;
  queue.add(30);
  queue.add(6, Lane::kInteractive);
  queue.add(9, Lane::kInteractive);
  EXPECT_EQ(lengths(queue.scheduler.pick(busy_express_worker(), 0)),
            (std::vector<std::uint32_t>{30}));
  EXPECT_TRUE(queue.scheduler.pick(busy_express_worker(), 0).empty());
  EXPECT_EQ(lengths(queue.scheduler.pick_express(busy_express_worker(), 0)),
            (std::vector<std::uint32_t>{6, 9}));
  EXPECT_FALSE(queue.scheduler.has_queries());
}

TEST(Scheduler, AnIdleWorkerGetsQueriesInATurn) {
  Queue queue;
  queue.add(6, Lane::kInteractive);
  WorkerCapacity idle = busy_express_worker();
  idle.batches_in_flight = 0;
  EXPECT_EQ(lengths(queue.scheduler.pick(idle, 0)), (std::vector<std::uint32_t>{6}));
}

TEST(Scheduler, AnExpressBatchHoldsItsTokensAndNoBulk) {
  Queue queue;
  queue.add(5);
  for (const std::uint32_t length : {12, 12, 7}) queue.add(length, Lane::kInteractive);
  EXPECT_EQ(lengths(queue.scheduler.pick_express(busy_express_worker(), 0)),
            (std::vector<std::uint32_t>{12, 7}));
}

TEST(Scheduler, QueriesTooLongForAnExpressBatchTakeTurns) {
  Queue queue;
  queue.add(21, Lane::kInteractive);
  EXPECT_TRUE(queue.scheduler.pick_express(busy_express_worker(), 0).empty());
  EXPECT_EQ(lengths(queue.scheduler.pick(busy_express_worker(), 0)),
            (std::vector<std::uint32_t>{21}));
}

TEST(Scheduler, MoreQueriesThanAnExpressBatchHoldsTakeTurnsToo) {
  Queue queue;
  for (int i = 0; i < 5; ++i) queue.add(9, Lane::kInteractive);
  EXPECT_EQ(queue.scheduler.pick(busy_express_worker(), 0).size(), 5U);
}

}  // namespace
}  // namespace tessera::coordinator
