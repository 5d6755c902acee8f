// Four GPUs as four workers, as one pair and two, or as one group of four, under a mixed load: does
// the scheduler get out of each layout what the workers' cost models promise?

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "coordinator/core/items/embedding.hpp"
#include "coordinator/core/scheduling/scheduler.hpp"

namespace tessera::coordinator {
namespace {

constexpr std::uint32_t kLong = 8192;

// Cost models of the 4B shape as measured on H200s (bench/README.md): one GPU, and groups that
// split batches along their tokens.
WorkerCapacity group_of(int gpus) {
  const double speed_up = gpus == 1 ? 1 : gpus == 2 ? 1.95 : 3.75;
  return {.max_batch_tokens = 65'536,
          .max_batch_sequences = 4096,
          .max_seqlen = 32'768,
          .cost = {.fixed_s = 0.0032,
                   .per_token_s = 1.10e-5 / speed_up,
                   .per_square_s = 4.8e-10 / speed_up}};
}

struct Layout {
  std::string name;
  std::vector<WorkerCapacity> workers;
};

std::vector<Layout> layouts() {
  Layout mixed{"pair and two", {group_of(2), group_of(1), group_of(1)}};
  mixed.workers[0].preferred = {.min = kLong, .max = std::numeric_limits<std::uint32_t>::max()};
  mixed.workers[1].preferred = mixed.workers[2].preferred = {.min = 0, .max = kLong - 1};
  return {
      {"four", std::vector<WorkerCapacity>(4, group_of(1))}, mixed, {"one of four", {group_of(4)}}};
}

struct Arrival {
  Micros at = 0;
  std::uint32_t length = 0;
};

// 90 % of at most 512 tokens, 10 % of 8k to 32k.
std::vector<Arrival> arrivals(std::size_t count, double gap_s) {
  std::mt19937_64 random(17);
  std::exponential_distribution<double> gap(gap_s > 0 ? 1 / gap_s : 1);
  std::vector<Arrival> all;
  double now_s = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (gap_s > 0) now_s += gap(random);
    const auto length =
        random() % 10 == 0 ? kLong + random() % (32'768 - kLong) : 1 + random() % 512;
    all.push_back({static_cast<Micros>(now_s * 1e6), static_cast<std::uint32_t>(length)});
  }
  return all;
}

struct Outcome {
  double makespan_s = 0;
  double tokens_per_s = 0;
  double long_p99_s = 0;
  double short_p99_s = 0;
};

// Seconds the load would take if every worker were busy to the end.
double predicted_s(const Layout& layout, const std::vector<Arrival>& load) {
  double rate = 0;
  for (const WorkerCapacity& worker : layout.workers) {
    double alone_s = 0;
    for (const Arrival& a : load) {
      alone_s += worker.cost.seconds(a.length, std::pow(a.length, 2)) - worker.cost.fixed_s;
    }
    rate += 1 / alone_s;
  }
  return 1 / rate;
}

double p99(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() * 99 / 100];
}

class Cluster {
 public:
  explicit Cluster(const Layout& layout) : layout_(layout), busy_until_(layout.workers.size()) {}

  Outcome run(const std::vector<Arrival>& load) {
    batches_.resize(busy_until_.size());
    std::vector<std::unique_ptr<Flight>> flights;
    std::vector<double> long_s, short_s;
    double tokens = 0;
    Micros now = 0;
    for (std::size_t next = 0, done = 0; done < load.size();) {
      for (; next < load.size() && load[next].at <= now; ++next) {
        flights.push_back(std::make_unique<Flight>());
        flights.back()->ids.assign(load[next].length, 1);
        flights.back()->stream = {.tenant = "t", .job = "j"};
        scheduler_.add(flights.back().get(), load[next].at);
        tokens += load[next].length;
      }
      for (std::size_t w = 0; w < batches_.size(); ++w) {
        if (batches_[w].empty() || busy_until_[w] > now) continue;
        for (const Flight* flight : batches_[w]) {
          (flight->length() >= kLong ? long_s : short_s)
              .push_back(static_cast<double>(now - flight->waiting_since) / 1e6);
        }
        done += batches_[w].size();
        batches_[w].clear();
      }
      for (std::size_t w = 0; w < batches_.size(); ++w) {
        if (batches_[w].empty()) start(w, now);
      }
      now = next_event(next < load.size() ? load[next].at : kNever, now);
    }
    const double end_s = static_cast<double>(*std::ranges::max_element(busy_until_)) / 1e6;
    return {end_s, tokens / end_s, p99(long_s), p99(short_s)};
  }

 private:
  static constexpr Micros kNever = std::numeric_limits<Micros>::max();

  void start(std::size_t w, Micros now) {
    WorkerCapacity capacity = layout_.workers[w];
    capacity.free_slots_of_model = static_cast<std::uint32_t>(
        std::ranges::count_if(batches_, [](const auto& batch) { return batch.empty(); }));
    batches_[w] = scheduler_.pick(capacity, now);
    double tokens = 0, squares = 0;
    for (const Flight* flight : batches_[w]) {
      tokens += flight->length();
      squares += std::pow(flight->length(), 2);
    }
    if (!batches_[w].empty()) {
      busy_until_[w] = now + static_cast<Micros>(capacity.cost.seconds(tokens, squares) * 1e6);
    }
  }

  Micros next_event(Micros arrival, Micros now) const {
    Micros event = arrival;
    for (std::size_t w = 0; w < batches_.size(); ++w) {
      if (!batches_[w].empty()) event = std::min(event, busy_until_[w]);
    }
    return event == kNever ? now + 1 : event;
  }

  const Layout& layout_;
  Scheduler scheduler_;
  std::vector<Micros> busy_until_;
  std::vector<std::vector<Flight*>> batches_;
};

TEST(LengthSharding, ThroughputIsWhatTheCostModelsPromiseInTheirOrder) {
  const std::vector<Arrival> load = arrivals(1200, 0);
  std::vector<double> taken, promised;
  for (const Layout& layout : layouts()) {
    const Outcome outcome = Cluster(layout).run(load);
    taken.push_back(outcome.makespan_s);
    promised.push_back(predicted_s(layout, load));
    std::printf("%-12s %6.2f s, promised %6.2f s, %8.0f tok/s\n", layout.name.c_str(), taken.back(),
                promised.back(), outcome.tokens_per_s);
    EXPECT_GE(taken.back(), promised.back() * 0.999);
    EXPECT_LE(taken.back(), promised.back() * 1.12) << layout.name;
  }
  EXPECT_TRUE(std::ranges::is_sorted(promised));
  EXPECT_LT(taken[0], taken[2]);  // Four workers win in total throughput.
}

TEST(LengthSharding, WideGroupsWinForLongTextsAtTheTail) {
  // About two thirds of what four single GPUs can do.
  const double item_s = predicted_s(layouts()[0], arrivals(4000, 0)) / 4000;
  const std::vector<Arrival> load = arrivals(4000, item_s * 1.5);
  std::vector<Outcome> outcomes;
  for (const Layout& layout : layouts()) {
    outcomes.push_back(Cluster(layout).run(load));
    std::printf("%-12s p99 of long texts %6.2f s, of short ones %6.2f s\n", layout.name.c_str(),
                outcomes.back().long_p99_s, outcomes.back().short_p99_s);
  }
  EXPECT_LT(outcomes[2].long_p99_s, outcomes[0].long_p99_s);
  // A pair for long texts keeps them out of the way of short ones.
  EXPECT_LT(outcomes[1].short_p99_s, outcomes[0].short_p99_s);
}

}  // namespace
}  // namespace tessera::coordinator
