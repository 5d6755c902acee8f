#include <gtest/gtest.h>

#include <cstdlib>
#include <tuple>

#include "common/log.hpp"
#include "tests/simulation/fake_cluster.hpp"

// TESSERA_SIMULATION_SEED=N runs that seed only; TESSERA_SIMULATION_RUNS=N so many of each
// scenario.
namespace tessera::coordinator::simulation {
namespace {

std::uint64_t number_from(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

void expect_all_holds(Scenario scenario) {
  log::set_level(number_from("TESSERA_SIMULATION_LOG", 0) != 0 ? log::Level::kInfo
                                                               : log::Level::kOff);
  const std::uint64_t only = number_from("TESSERA_SIMULATION_SEED", 0);
  const std::uint64_t runs = only != 0 ? 1 : number_from("TESSERA_SIMULATION_RUNS", 30);
  for (std::uint64_t i = 0; i < runs; ++i) {
    scenario.seed = only != 0 ? only : i + 1;
    FakeCluster cluster(scenario);
    for (const std::string& problem : cluster.run()) {
      ADD_FAILURE() << "TESSERA_SIMULATION_SEED=" << scenario.seed << ": " << problem;
    }
    if (testing::Test::HasFailure()) {
      return;
    }
  }
}

TEST(Simulation, NothingGoesWrong) { expect_all_holds({.faults = {}, .faults_end = 3'000'000}); }

TEST(Simulation, WorkersAreKilled) { expect_all_holds({.faults = {.worker_kills_per_s = 1.0}}); }

// Which is no death, so nothing is POISON.
TEST(Simulation, WorkersConnectionsBreak) {
  expect_all_holds(
      {.faults = {.connection_breaks_per_s = 5, .duplicate_messages = 0.2, .stale_results = 0.3}});
}

TEST(Simulation, WorkersArePausedAndAnswerLate) {
  expect_all_holds({.faults = {.worker_pauses_per_s = 0.5, .duplicate_messages = 0.2}});
}

TEST(Simulation, ClientsVanishAndComeBack) {
  expect_all_holds(
      {.faults = {.client_losses_per_s = 2.0, .duplicate_messages = 0.2, .reordered_chunks = 0.5}});
}

TEST(Simulation, TheCoordinatorIsKilled) {
  expect_all_holds({.faults = {.coordinator_kills_per_s = 0.3, .stale_results = 0.5}});
}

TEST(Simulation, TheLedgerGoesAway) { expect_all_holds({.faults = {.ledger_outages_per_s = 0.3}}); }

TEST(Simulation, NothingStaysInMemory) {
  expect_all_holds({.faults = {.client_losses_per_s = 1.0, .reordered_chunks = 0.5},
                    .cache_works = false,
                    .window_chunks = 3,
                    .resident_bytes_max = 0});
}

TEST(Simulation, TheLedgerRefuses) {
  expect_all_holds({.faults = {.client_losses_per_s = 0.5, .ledger_refusals = 0.3},
                    .cache_works = false,
                    .resident_bytes_max = 0});
}

// Results take the place of items even then, so that all that is accepted ends.
TEST(Simulation, TheLedgerIsFull) {
  expect_all_holds({.faults = {.client_losses_per_s = 0.5, .coordinator_kills_per_s = 0.1},
                    .cache_works = false,
                    .resident_bytes_max = 0,
                    .owed_bytes_max = 2000,
                    .ledger_bytes_max = 500});
}

TEST(Simulation, TheCacheHangs) {
  expect_all_holds({.faults = {.worker_kills_per_s = 0.5}, .cache_hangs = 0.5});
}

TEST(Simulation, AnotherClientSendsOtherItems) {
  expect_all_holds({.faults = {.client_losses_per_s = 0.5,
                               .coordinator_kills_per_s = 0.2,
                               .ledger_outages_per_s = 0.1,
                               .duplicate_messages = 0.2,
                               .reordered_chunks = 0.3,
                               .rival_chunks_per_s = 10}});
}

TEST(Simulation, TheLedgerIsEmptied) {
  expect_all_holds({.faults = {.connection_breaks_per_s = 0.3,
                               .client_losses_per_s = 0.3,
                               .coordinator_kills_per_s = 0.1,
                               .ledger_emptied_per_s = 0.2},
                    .chunks_per_job = 40,
                    .keeps_records = false});
}

TEST(Simulation, TheLedgerBecomesAnOlderCopy) {
  expect_all_holds({.faults = {.connection_breaks_per_s = 0.3,
                               .client_losses_per_s = 0.3,
                               .coordinator_kills_per_s = 0.3,
                               .ledger_outages_per_s = 0.1,
                               .duplicate_messages = 0.1,
                               .ledger_older_per_s = 0.3},
                    .chunks_per_job = 40,
                    .keeps_records = false});
}

// A simulator that finds nothing where something is wrong would be no test.
TEST(Simulation, PlantedFaultsAreFound) {
  const Faults losses{.coordinator_kills_per_s = 0.3, .ledger_older_per_s = 0.5};
  const std::tuple<Plant, Faults, const char*> plants[] = {
      {Plant::kDigestsAreNotCompared,
       {.coordinator_kills_per_s = 0.3, .rival_chunks_per_s = 10},
       "two chunks were accepted"},
      {Plant::kLossesAreNotNoticed, losses, "nobody noticed"},
  };
  log::set_level(log::Level::kOff);
  for (const auto& [plant, faults, expected] : plants) {
    bool found = false;
    for (std::uint64_t seed = 1; seed <= 20 && !found; ++seed) {
      FakeCluster cluster({.seed = seed,
                           .faults = faults,
                           .end = 120'000'000,
                           .keeps_records = false,
                           .plant = plant});
      for (const std::string& problem : cluster.run()) {
        found = found || problem.find(expected) != std::string::npos;
      }
    }
    EXPECT_TRUE(found) << static_cast<int>(plant) << ": " << expected;
  }
}

TEST(Simulation, EverythingAtOnce) {
  expect_all_holds({.faults = {.worker_kills_per_s = 0.5,
                               .worker_pauses_per_s = 0.2,
                               .connection_breaks_per_s = 0.5,
                               .client_losses_per_s = 0.5,
                               .coordinator_kills_per_s = 0.15,
                               .ledger_outages_per_s = 0.15,
                               .duplicate_messages = 0.1,
                               .stale_results = 0.3,
                               .reordered_chunks = 0.3},
                    .chunks_per_job = 40});
}

}  // namespace
}  // namespace tessera::coordinator::simulation
