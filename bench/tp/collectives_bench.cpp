// The collectives over peer memory by size and number of thread blocks, each result checked first
// against the host.
//
//   collectives_bench [--hidden 2560] [--nccl]
//
// With --nccl NCCL's own collectives come after each table.
//
// "bus" is 2 * (N - 1) / N * bytes / time, as NCCL's own tests count an all-reduce; here the time
// holds the residual and its mean squares as well. For the gather of keys and values it is the
// bytes that a GPU sends.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "bench/tp/nccl_collectives.hpp"
#include "common/check.hpp"
#include "kernels/cuda/base/bf16.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/resources.hpp"
#include "kernels/cuda/group/peer_collectives.hpp"
#include "kernels/cuda/group/peer_communicator.hpp"

namespace tessera::bench {
namespace {

using namespace kernels::cuda;

float widen(std::uint16_t bits) {
  const std::uint32_t word = static_cast<std::uint32_t>(bits) << 16;
  float value = 0;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

std::uint16_t narrow(float value) {
  std::uint32_t word = 0;
  std::memcpy(&word, &value, sizeof word);
  return static_cast<std::uint16_t>((word + 0x7FFF + ((word >> 16) & 1)) >> 16);
}

void on_device(int device) { cuda_check(cudaSetDevice(device)); }

constexpr std::int64_t kRowsMax = 16384;

// One GPU's buffers.
struct Rank {
  Rank(int device, std::int64_t elements) {
    on_device(device);
    stream = make_stream();
    from = make_event(Timing::kOn);
    to = make_event(Timing::kOn);
    const auto bytes = static_cast<std::size_t>(elements) * sizeof(Bf16);
    partial = std::make_unique<DeviceBuffer>(bytes, "partial sums");
    x = std::make_unique<DeviceBuffer>(bytes, "residual");
    out = std::make_unique<DeviceBuffer>(bytes, "gathered");
    squares = std::make_unique<DeviceBuffer>(kRowsMax * sizeof(float), "mean squares");
    rows = std::make_unique<DeviceBuffer>(1 << 20, "rows");
    signals = std::make_unique<DeviceBuffer>(sizeof(PeerSignals), "signals");
    cuda_check(cudaMemset(signals->data(), 0, signals->bytes()));
  }
  Stream stream;
  Event from, to;
  std::unique_ptr<DeviceBuffer> partial, x, out, squares, rows, signals;
};

class Group {
 public:
  Group(int size, std::int64_t hidden, std::int64_t max_rows) : hidden_(hidden) {
    for (int i = 0; i < size; ++i) {
      ranks_.push_back(std::make_unique<Rank>(i, hidden * max_rows));
      for (int peer = 0; peer < size; ++peer) {
        if (peer == i) continue;
        if (cudaDeviceEnablePeerAccess(peer, 0) != cudaSuccess) (void)cudaGetLastError();
      }
    }
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (const auto& rank : ranks_) {
      on_device(index_of(*rank));
      partials_.push_back(fill(*rank->partial, random, normal));
      if (xs_.empty()) xs_ = fill(*rank->x, random, normal);
      cuda_check(cudaMemcpy(rank->x->data(), xs_.data(), xs_.size() * 2, cudaMemcpyHostToDevice));
      cuda_check(cudaDeviceSynchronize());
    }
  }

  int size() const { return static_cast<int>(ranks_.size()); }

  void reduce_add(std::int64_t rows, int blocks) {
    each([&](int i, Rank& rank) {
      launch_peer_reduce_add(group(i, blocks),
                             {.partial = pointers<const Bf16>(&Rank::partial),
                              .x = pointers<Bf16>(&Rank::x),
                              .mean_squares = pointers<float>(&Rank::squares),
                              .rows = rows,
                              .hidden = static_cast<int>(hidden_)},
                             rank.stream.get());
    });
  }

  void stage_rows(std::int64_t tokens) {
    each([&](int i, Rank& rank) {
      std::vector<std::int32_t> rows(static_cast<std::size_t>(tokens) + kGatherHeader);
      rows[0] = static_cast<std::int32_t>(tokens);
      for (std::int64_t t = 0; t < tokens; ++t) {
        rows[static_cast<std::size_t>(t) + kGatherHeader] =
            static_cast<std::int32_t>(i * tokens + t);
      }
      cuda_check(
          cudaMemcpy(rank.rows->data(), rows.data(), rows.size() * 4, cudaMemcpyHostToDevice));
      cuda_check(cudaDeviceSynchronize());
    });
  }

  // Every rank's `tokens` rows to the others, one behind the other.
  void gather(int width, int blocks) {
    each([&](int i, Rank& rank) {
      launch_peer_gather_rows(group(i, blocks),
                              {.gathered = pointers<Bf16>(&Rank::out),
                               .source = rank.partial->as<Bf16>(),
                               .source_width = width,
                               .width = width,
                               .rows = rank.rows->as<std::int32_t>()},
                              rank.stream.get());
    });
  }

  // The same by the copy engines, which leave the multiprocessors alone.
  void gather_by_copies(std::int64_t tokens, int width) {
    const auto bytes = static_cast<std::size_t>(tokens * width) * sizeof(Bf16);
    each([&](int i, Rank& rank) {
      for (int k = 1; k < size(); ++k) {
        Rank& peer = *ranks_[static_cast<std::size_t>((i + k) % size())];
        cuda_check(cudaMemcpyAsync(peer.out->as<std::byte>(bytes * static_cast<std::size_t>(i)),
                                   rank.partial->data(), bytes, cudaMemcpyDeviceToDevice,
                                   rank.stream.get()));
      }
    });
  }

  double median_us(const std::function<void()>& launch, int repeats) {
    for (int i = 0; i < 3; ++i) launch();
    std::vector<double> times;
    for (int batch = 0; batch < 7; ++batch) {
      record(&Rank::from);
      for (int i = 0; i < repeats; ++i) launch();
      record(&Rank::to);
      double most = 0;
      each([&](int, Rank& rank) {
        most = std::max(most, static_cast<double>(elapsed_ms(rank.from, rank.to)));
      });
      times.push_back(most * 1000 / repeats);
    }
    std::ranges::nth_element(times, times.begin() + 3);
    return times[3];
  }

  // Once over fresh residuals; the worst relative error of a few rows, or infinity where ranks
  // differ or mean squares are wrong.
  double check(std::int64_t rows, int blocks) {
    each([&](int, Rank& rank) {
      cuda_check(cudaMemcpy(rank.x->data(), xs_.data(), xs_.size() * 2, cudaMemcpyHostToDevice));
      cuda_check(cudaDeviceSynchronize());
    });
    reduce_add(rows, blocks);
    const auto count = static_cast<std::size_t>(rows * hidden_);
    std::vector<std::uint16_t> first, other(count);
    bool same = true;
    each([&](int i, Rank& rank) {
      cuda_check(cudaStreamSynchronize(rank.stream.get()));
      cuda_check(cudaMemcpy(other.data(), rank.x->data(), count * 2, cudaMemcpyDeviceToHost));
      if (i == 0) first = other;
      same = same && first == other && squares_are_right(rank, first, rows);
    });
    if (!same) return INFINITY;
    double worst = 0;
    for (std::int64_t row = 0; row < rows; row += std::max<std::int64_t>(rows / 37, 1)) {
      worst = std::max(worst, row_error(first, row));
    }
    return worst;
  }

 private:
  int index_of(const Rank& rank) const {
    for (std::size_t i = 0; i < ranks_.size(); ++i) {
      if (ranks_[i].get() == &rank) return static_cast<int>(i);
    }
    return -1;
  }

  template <typename Use>
  void each(Use use) {
    for (int i = 0; i < size(); ++i) {
      on_device(i);
      use(i, *ranks_[static_cast<std::size_t>(i)]);
    }
  }
  void record(Event Rank::*event) {
    each([&](int, Rank& rank) {
      cuda_check(cudaEventRecord((rank.*event).get(), rank.stream.get()));
    });
  }

  std::vector<std::uint16_t> fill(DeviceBuffer& buffer, std::mt19937& random,
                                  std::normal_distribution<float>& normal) {
    std::vector<std::uint16_t> values(buffer.bytes() / 2);
    const std::size_t drawn = std::min<std::size_t>(values.size(), 1'000'003);
    for (std::size_t i = 0; i < drawn; ++i) values[i] = narrow(normal(random));
    for (std::size_t i = drawn; i < values.size(); ++i) values[i] = values[i - drawn];
    cuda_check(cudaMemcpy(buffer.data(), values.data(), buffer.bytes(), cudaMemcpyHostToDevice));
    return values;
  }

  template <typename T>
  PeerPointers<T> pointers(std::unique_ptr<DeviceBuffer> Rank::*buffer) const {
    PeerPointers<T> all;
    for (std::size_t i = 0; i < ranks_.size(); ++i) {
      all.of[i] = static_cast<T*>(((*ranks_[i]).*buffer)->data());
    }
    return all;
  }

  PeerGroup group(int rank, int blocks) const {
    PeerGroup g{.rank = rank, .size = size(), .blocks = blocks};
    for (std::size_t i = 0; i < ranks_.size(); ++i) {
      g.signals.of[i] = ranks_[i]->signals->as<PeerSignals>();
    }
    return g;
  }

  bool squares_are_right(Rank& rank, const std::vector<std::uint16_t>& x, std::int64_t rows) const {
    std::vector<float> squares(static_cast<std::size_t>(rows));
    cuda_check(cudaMemcpy(squares.data(), rank.squares->data(), squares.size() * sizeof(float),
                          cudaMemcpyDeviceToHost));
    const auto width = static_cast<std::size_t>(hidden_);
    for (std::size_t row = 0; row < squares.size(); row += 1 + squares.size() / 37) {
      double sum = 0;
      for (std::size_t i = 0; i < width; ++i) sum += std::pow(widen(x[row * width + i]), 2);
      if (!(std::abs(squares[row] / (sum / static_cast<double>(width) + 1e-6) - 1) < 1e-5)) {
        return false;
      }
    }
    return true;
  }

  double row_error(const std::vector<std::uint16_t>& out, std::int64_t row) const {
    const auto first = static_cast<std::size_t>(row * hidden_);
    const auto width = static_cast<std::size_t>(hidden_);
    std::vector<double> expected(width);
    for (std::size_t i = 0; i < width; ++i) {
      expected[i] = widen(xs_[first + i]);
      for (const auto& partial : partials_) expected[i] += widen(partial[first + i]);
    }
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < width; ++i) {
      difference += std::pow(widen(out[first + i]) - expected[i], 2);
      norm += expected[i] * expected[i];
    }
    return std::sqrt(difference / norm);
  }

  std::int64_t hidden_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  std::vector<std::vector<std::uint16_t>> partials_;
  std::vector<std::uint16_t> xs_;
};

constexpr int kBlockCounts[] = {8, 16, 24, 32, 48, 64};

void measure(int size, std::int64_t hidden) {
  Group group(size, hidden, kRowsMax);
  std::printf("%d GPUs, hidden %lld: sum + residual + mean squares, us (bus GB/s) by blocks\n",
              size, static_cast<long long>(hidden));
  for (const std::int64_t rows : {24, 128, 512, 2048, 4096, 8192, 16384}) {
    const double bytes = static_cast<double>(rows * hidden) * 2;
    std::printf("%6lld rows %7.2f MB error %.1e |", static_cast<long long>(rows), bytes / 1e6,
                group.check(rows, 64));
    for (const int blocks : kBlockCounts) {
      const double us = group.median_us([&] { group.reduce_add(rows, blocks); }, 20);
      std::printf(" %d: %.1f (%.0f)", blocks, us, 2.0 * (size - 1) / size * bytes / us / 1e3);
    }
    std::printf("\n");
    std::fflush(stdout);
  }
  std::printf(
      "%d GPUs: keys and values of a GPU's tokens to the others, us (sent GB/s) by blocks\n", size);
  constexpr int kWidth = 2048;
  for (const std::int64_t tokens : {128, 512, 2048, 8192}) {
    if (tokens * size * kWidth > 16384 * hidden) continue;
    group.stage_rows(tokens);
    const double sent = static_cast<double>(tokens * kWidth) * 2 * (size - 1);
    std::printf("%6lld tokens |", static_cast<long long>(tokens));
    for (const int blocks : kBlockCounts) {
      const double us = group.median_us([&] { group.gather(kWidth, blocks); }, 20);
      std::printf(" %d: %.1f (%.0f)", blocks, us, sent / us / 1e3);
    }
    const double us = group.median_us([&] { group.gather_by_copies(tokens, kWidth); }, 20);
    std::printf(" | copy engines: %.1f (%.0f)\n", us, sent / us / 1e3);
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  try {
    std::int64_t hidden = 2560;
    bool nccl = false;
    for (int i = 1; i < argc; ++i) {
      if (std::strcmp(argv[i], "--nccl") == 0) nccl = true;
      if (std::strcmp(argv[i], "--hidden") == 0 && i + 1 < argc) hidden = std::atoll(argv[++i]);
    }
    const int gpus = tessera::kernels::cuda_device_count();
    for (const int size : {2, 4, 8}) {
      if (size > gpus) continue;
      tessera::bench::measure(size, hidden);
      if (nccl) tessera::bench::measure_nccl(size, hidden);
    }
    return gpus >= 2 ? EXIT_SUCCESS : EXIT_FAILURE;
  } catch (const tessera::FatalError& error) {
    std::fprintf(stderr, "collectives_bench: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
