#include "bench/tp/nccl_collectives.hpp"

#include <dlfcn.h>
#include <nccl.h>

#include <algorithm>
#include <array>
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "common/check.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/resources.hpp"

namespace tessera::bench {
namespace {

using namespace kernels::cuda;

constexpr std::array<std::int64_t, 6> kRows = {24, 128, 512, 2048, 4096, 16384};

// What this program uses of libnccl.so.2.
struct Nccl {
  Nccl() {
    ::setenv("NCCL_NVLS_ENABLE", "0", 1);
    library = ::dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) throw FatalError("libnccl.so.2 was not found");
    find(get_version, "ncclGetVersion");
    find(get_unique_id, "ncclGetUniqueId");
    find(comm_init, "ncclCommInitRankConfig");
    find(comm_destroy, "ncclCommDestroy");
    find(mem_alloc, "ncclMemAlloc");
    find(mem_free, "ncclMemFree");
    find(window_register, "ncclCommWindowRegister");
    find(window_deregister, "ncclCommWindowDeregister");
    find(all_reduce, "ncclAllReduce");
    find(reduce_scatter, "ncclReduceScatter");
    find(all_gather, "ncclAllGather");
    find(get_error_string, "ncclGetErrorString");
  }
  template <typename Function>
  void find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(::dlsym(library, name));
    if (function == nullptr) throw FatalError(std::string("libnccl.so.2 has no ") + name);
  }
  void check(ncclResult_t result, const char* what) const {
    if (result != ncclSuccess)
      throw FatalError(std::string(what) + ": " + get_error_string(result));
  }

  void* library = nullptr;
  decltype(&ncclGetVersion) get_version = nullptr;
  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclCommInitRankConfig) comm_init = nullptr;
  decltype(&ncclCommDestroy) comm_destroy = nullptr;
  decltype(&ncclMemAlloc) mem_alloc = nullptr;
  decltype(&ncclMemFree) mem_free = nullptr;
  decltype(&ncclCommWindowRegister) window_register = nullptr;
  decltype(&ncclCommWindowDeregister) window_deregister = nullptr;
  decltype(&ncclAllReduce) all_reduce = nullptr;
  decltype(&ncclReduceScatter) reduce_scatter = nullptr;
  decltype(&ncclAllGather) all_gather = nullptr;
  decltype(&ncclGetErrorString) get_error_string = nullptr;
};

enum class Kind : std::uint8_t { kPlain, kWindows, kCopyEngines };
constexpr std::array kKinds = {Kind::kPlain, Kind::kWindows, Kind::kCopyEngines};
enum class Operation : std::uint8_t { kAllReduce, kReduceScatter, kAllGather };
constexpr std::array kOperations = {Operation::kAllReduce, Operation::kReduceScatter,
                                    Operation::kAllGather};

// What the ranks' threads share.
struct Shared {
  Shared(int ranks, std::int64_t width) : size(ranks), hidden(width), meet(ranks) {
    nccl.check(nccl.get_unique_id(&id), "a unique id");
  }
  const Nccl nccl;
  const int size;
  const std::int64_t hidden;
  std::barrier<> meet;
  ncclUniqueId id{};
  std::array<std::array<double, 8>, 3> us{};  // of one number of rows, by rank
};

// bf16 bits of a small whole number.
std::uint16_t bits_of(int value) {
  const auto wide = static_cast<float>(value);
  std::uint32_t word = 0;
  std::memcpy(&word, &wide, sizeof word);
  return static_cast<std::uint16_t>(word >> 16);
}

class Rank {
 public:
  Rank(Shared& shared, int rank, Kind kind)
      : shared_(shared), nccl_(shared.nccl), rank_(rank), kind_(kind) {
    cuda_check(cudaSetDevice(rank));
    stream_ = make_stream();
    from_ = make_event(Timing::kOn);
    to_ = make_event(Timing::kOn);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    if (kind == Kind::kCopyEngines) config.CTAPolicy = NCCL_CTA_POLICY_ZERO;
    nccl_.check(nccl_.comm_init(&comm_, shared.size, shared.id, rank, &config), "connect");
    bytes_ = static_cast<std::size_t>(kRows.back() * shared.hidden) * sizeof(std::uint16_t);
    for (int i = 0; i < 2; ++i) take(i);
    const std::vector<std::uint16_t> own(bytes_ / 2, bits_of(rank + 1));
    cuda_check(cudaMemcpy(buffers_[0], own.data(), bytes_, cudaMemcpyHostToDevice));
  }
  ~Rank() {
    (void)cudaStreamSynchronize(stream_.get());
    for (int i = 0; i < 2; ++i) {
      if (windows_[i] != nullptr) (void)nccl_.window_deregister(comm_, windows_[i]);
      (void)(kind_ == Kind::kPlain ? static_cast<int>(cudaFree(buffers_[i]))
                                   : static_cast<int>(nccl_.mem_free(buffers_[i])));
    }
    (void)nccl_.comm_destroy(comm_);
  }
  Rank(const Rank&) = delete;
  Rank& operator=(const Rank&) = delete;

  void launch(Operation operation, std::int64_t rows) {
    const auto all = static_cast<std::size_t>(rows * shared_.hidden);
    const std::size_t share = all / static_cast<std::size_t>(shared_.size);
    void* in = buffers_[0];
    void* out = buffers_[1];
    switch (operation) {
      case Operation::kAllReduce:
        nccl_.check(nccl_.all_reduce(in, out, all, ncclBfloat16, ncclSum, comm_, stream_.get()),
                    "reduce");
        break;
      case Operation::kReduceScatter:
        nccl_.check(
            nccl_.reduce_scatter(in, out, share, ncclBfloat16, ncclSum, comm_, stream_.get()),
            "reduce and scatter");
        break;
      case Operation::kAllGather:
        nccl_.check(nccl_.all_gather(in, out, share, ncclBfloat16, comm_, stream_.get()), "gather");
        break;
    }
  }

  void check(Operation operation, std::int64_t rows) {
    cuda_check(cudaMemsetAsync(buffers_[1], 0xFF, bytes_, stream_.get()));
    launch(operation, rows);
    cuda_check(cudaStreamSynchronize(stream_.get()));
    const auto all = static_cast<std::size_t>(rows * shared_.hidden);
    const std::size_t share = all / static_cast<std::size_t>(shared_.size);
    std::vector<std::uint16_t> out(operation == Operation::kReduceScatter ? share : all);
    cuda_check(cudaMemcpy(out.data(), buffers_[1], out.size() * 2, cudaMemcpyDeviceToHost));
    for (std::size_t i = 0; i < out.size(); ++i) {
      const int expected = operation == Operation::kAllGather
                               ? static_cast<int>(i / share) + 1
                               : shared_.size * (shared_.size + 1) / 2;
      if (out[i] != bits_of(expected)) throw FatalError("NCCL gave a wrong result");
    }
  }

  double median_us(Operation operation, std::int64_t rows) {
    constexpr int kRepeats = 20;
    std::array<double, 7> times{};
    for (double& us : times) {
      shared_.meet.arrive_and_wait();
      cuda_check(cudaEventRecord(from_.get(), stream_.get()));
      for (int i = 0; i < kRepeats; ++i) launch(operation, rows);
      cuda_check(cudaEventRecord(to_.get(), stream_.get()));
      us = static_cast<double>(elapsed_ms(from_, to_)) * 1000 / kRepeats;
    }
    std::ranges::nth_element(times, times.begin() + 3);
    return times[3];
  }

 private:
  void take(int i) {
    if (kind_ == Kind::kPlain) {
      cuda_check(cudaMalloc(&buffers_[i], bytes_));
      return;
    }
    nccl_.check(nccl_.mem_alloc(&buffers_[i], bytes_), "take memory");
    nccl_.check(
        nccl_.window_register(comm_, buffers_[i], bytes_, &windows_[i], NCCL_WIN_COLL_SYMMETRIC),
        "register a window");
  }

  Shared& shared_;
  const Nccl& nccl_;
  const int rank_;
  const Kind kind_;
  Stream stream_;
  Event from_, to_;
  ncclComm_t comm_ = nullptr;
  std::size_t bytes_ = 0;
  std::array<void*, 2> buffers_{};  // in, out
  std::array<ncclWindow_t, 2> windows_{};
};

const char* name_of(Kind kind) {
  return kind == Kind::kPlain     ? "plain memory"
         : kind == Kind::kWindows ? "symmetric windows"
                                  : "windows, no thread blocks";
}

void run_rank(Shared& shared, int index, Kind kind) {
  Rank rank(shared, index, kind);
  for (const std::int64_t rows : kRows) {
    for (const Operation operation : kOperations) {
      rank.check(operation, rows);
      shared.us[static_cast<std::size_t>(operation)][static_cast<std::size_t>(index)] =
          rank.median_us(operation, rows);
    }
    shared.meet.arrive_and_wait();
    if (index == 0) {
      const double mb = static_cast<double>(rows * shared.hidden) * 2 / 1e6;
      std::printf("  %-25s %6lld rows %7.2f MB |", name_of(kind), static_cast<long long>(rows), mb);
      for (const Operation operation : kOperations) {
        const auto& times = shared.us[static_cast<std::size_t>(operation)];
        std::printf(" %9.1f", *std::max_element(times.begin(), times.begin() + shared.size));
      }
      std::printf("\n");
      std::fflush(stdout);
    }
    shared.meet.arrive_and_wait();
  }
}

}  // namespace

void measure_nccl(int size, std::int64_t hidden) {
  for (const Kind kind : kKinds) {
    Shared shared(size, hidden);
    if (kind == Kind::kPlain) {
      int version = 0;
      shared.nccl.check(shared.nccl.get_version(&version), "version");
      std::printf("%d GPUs, NCCL %d, us: all-reduce, reduce-scatter, all-gather\n", size, version);
    }
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&shared, rank, kind] {
        try {
          run_rank(shared, rank, kind);
        } catch (const FatalError& error) {
          // The other ranks may wait for this one for ever.
          std::printf("  %s: rank %d: %s\n", name_of(kind), rank, error.what());
          std::fflush(stdout);
          std::_Exit(EXIT_FAILURE);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

}  // namespace tessera::bench
