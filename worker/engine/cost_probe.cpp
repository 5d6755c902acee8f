#include "worker/engine/cost_probe.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <numeric>
#include <vector>

#include "common/log.hpp"

namespace tessera::worker {
namespace {

using Row = std::array<double, 3>;  // weights of fixed, per_token, per_square in one sample

// Solves the normal equations restricted to the terms in `used`; others are 0.
CostModel solve(std::span<const CostSample> samples, const std::array<bool, 3>& used) {
  std::array<std::array<double, 4>, 3> m{};
  for (const CostSample& s : samples) {
    const Row row = {1 / s.seconds, s.tokens / s.seconds, s.sum_of_squares / s.seconds};
    for (std::size_t i = 0; i < 3; ++i) {
      for (std::size_t j = 0; j < 3; ++j) {
        m[i][j] += used[i] && used[j] ? row[i] * row[j] : 0;
      }
      m[i][3] += used[i] ? row[i] : 0;
    }
  }
  std::array<double, 3> x{};
  for (std::size_t i = 0; i < 3; ++i) {  // Gauss-Jordan; the matrix is positive semidefinite.
    if (m[i][i] <= 1e-12) {
      continue;
    }
    for (std::size_t k = 0; k < 3; ++k) {
      const double factor = k == i ? 0 : m[k][i] / m[i][i];
      for (std::size_t j = 0; j < 4; ++j) {
        m[k][j] -= factor * m[i][j];
      }
    }
  }
  for (std::size_t i = 0; i < 3; ++i) {
    x[i] = m[i][i] > 1e-12 ? m[i][3] / m[i][i] : 0;
  }
  return {.fixed_s = x[0], .per_token_s = x[1], .per_square_s = x[2]};
}

double squared_error(const CostModel& model, std::span<const CostSample> samples) {
  double total = 0;
  for (const CostSample& s : samples) {
    const double error = model.seconds(s.tokens, s.sum_of_squares) / s.seconds - 1;
    total += error * error;
  }
  return total;
}

// Best of two passes over `count` sequences of `len` tokens.
CostSample time_batch(Engine& engine, std::int64_t count, std::int64_t len) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(count * len));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] =
        static_cast<std::int32_t>(static_cast<std::int64_t>(i * 7919) % engine.info().vocab_size);
  }
  std::vector<std::int32_t> cu_seqlens(static_cast<std::size_t>(count) + 1);
  for (std::size_t i = 0; i < cu_seqlens.size(); ++i) {
    cu_seqlens[i] = static_cast<std::int32_t>(static_cast<std::int64_t>(i) * len);
  }
  double best_s = 1e9;
  for (int pass = 0; pass < 2; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    engine.enqueue(0, {.input_ids = ids, .cu_seqlens = cu_seqlens});
    engine.wait(0);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    best_s = std::min(best_s, taken.count());
  }
  const auto tokens = static_cast<double>(count * len);
  return {.tokens = tokens, .sum_of_squares = tokens * static_cast<double>(len), .seconds = best_s};
}

}  // namespace

CostModel fit_cost(std::span<const CostSample> samples) {
  CostModel best;
  double best_error = 1e300;
  // Eight subsets of terms: the best one whose terms are all positive is the constrained optimum.
  for (unsigned subset = 1; subset < 8; ++subset) {
    const CostModel model =
        solve(samples, {(subset & 1) != 0, (subset & 2) != 0, (subset & 4) != 0});
    const double error = squared_error(model, samples);
    if (model.fixed_s >= 0 && model.per_token_s >= 0 && model.per_square_s >= 0 &&
        error < best_error) {
      best = model;
      best_error = error;
    }
  }
  return best;
}

CostModel measure_cost(Engine& engine) {
  constexpr double kBudgetS = 0.4;  // per batch and pass
  const EngineInfo& info = engine.info();
  const std::int64_t probe_len = std::min<std::int64_t>(16, info.max_seqlen);
  time_batch(engine, 1, probe_len);  // The first pass makes tables and warms caches.
  std::vector<CostSample> samples = {time_batch(engine, 1, probe_len)};
  const double token_s = samples[0].seconds / static_cast<double>(probe_len);
  const auto affordable =
      std::max<std::int64_t>(2 * probe_len, std::llround(std::min(kBudgetS / token_s, 1e6)));
  const std::int64_t tokens = std::min(affordable, info.max_batch_tokens);
  for (const std::int64_t len : {32L, 256L, 2048L, 8192L}) {
    const std::int64_t fits = std::min({len, tokens, info.max_seqlen});
    const std::int64_t count = std::clamp<std::int64_t>(tokens / fits, 1, info.max_sequences);
    samples.push_back(time_batch(engine, count, fits));
    if (fits < len) {
      break;
    }
  }
  const CostModel cost = fit_cost(samples);
  log::info("a batch takes {:.3f} ms + {:.3f} us a token + {:.3f} ns a squared length",
            cost.fixed_s * 1e3, cost.per_token_s * 1e6, cost.per_square_s * 1e9);
  return cost;
}

}  // namespace tessera::worker
