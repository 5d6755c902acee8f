#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/cost_model.hpp"
#include "common/result.hpp"
#include "kernels/communicator.hpp"
#include "kernels/types.hpp"
#include "worker/split/shard.hpp"

namespace tessera::worker {

struct EngineOptions {
  std::filesystem::path model_dir;  // a Hugging Face folder
  std::string device = "cpu";       // "cpu", "cuda:0"
  // A group of devices of this process: GPUs as in choose_devices, instead of `device`; or on the
  // CPU `tp` teams of threads.
  std::string devices;
  std::string tp = "auto";
  kernels::Transport transport = kernels::Transport::kAuto;  // between GPUs
  std::optional<GroupSplit> split;  // none: see choose_split in worker/group/group_engine.hpp
  int threads = 0;                  // CPU only; 0: all cores
  // Zero picks a value from the model and the device; a given value that cannot hold is refused.
  std::int64_t max_batch_tokens = 0;
  std::int64_t max_seqlen = 0;
  std::int64_t max_sequences = 0;
  // Of the device's free memory the most that is taken. Where no max_batch_tokens is given, it is
  // the largest useful number that stays within.
  double mem_fraction = 0.9;
  // Of weights and activations. bfloat16 becomes float32 on a CPU without AVX512-BF16.
  kernels::DType weight_type = kernels::DType::kBFloat16;
  bool rehash = false;       // Hash the weights, whatever is remembered of them.
  bool measure_cost = true;  // Takes about a second of passes at start; tests turn it off.
  // Seconds of work that are queued on the device together, by the measured cost; 0 picks. A number
  // given where no cost is measured cuts passes after every step.
  double piece_s = 0;
};

// What a worker tells the coordinator about itself.
struct EngineInfo {
  std::string model_name;          // the folder's name
  std::string fingerprint;         // 64 hexadecimal digits, see common/model/fingerprint.hpp
  std::string former_fingerprint;  // as versions before computed it; empty: none
  std::string tokenizer_hash;      // BLAKE2b-256 of tokenizer.json, 64 hexadecimal digits
  std::string device;              // "cpu avx512_bf16, 2 threads", "NVIDIA H200"
  // Workers of one kind give the same bits: "cpu-avx512_bf16", "sm90", "sm90 x2 weights" for a
  // group that splits its sums.
  std::string device_kind;
  std::string number_format;             // of weights and activations: "bfloat16"
  std::vector<std::string> pci_bus_ids;  // of its GPUs: "00000000:1b:00.0"
  int group_size = 1;
  std::int64_t hidden_size = 0;
  std::int64_t vocab_size = 0;
  std::int64_t max_seqlen = 0;
  std::int64_t max_batch_tokens = 0;
  std::int64_t max_sequences = 0;
  std::int64_t express_tokens = 0;  // of an express batch
  CostModel cost;
};

// Why a batch cannot run, or ok: no sequence or too many, an empty or too long one, too many
// tokens, cu_seqlens not rising from 0 to the number of ids, an id outside the vocabulary.
Result<void> check_batch(const kernels::PackedBatchView& batch, const kernels::BatchLimits& limits,
                         std::int64_t vocab_size);

// One copy of a model on one device: packed token ids in, unit vectors out, `slots()` batches in
// flight, and an express batch that overtakes them: slot number `slots()` takes one of at most
// info().express_tokens tokens, which is computed as soon as the layers that are queued on the
// device have run, some milliseconds; then the others go on. Bits are the same either way. Made by
// create_engine() (worker/create_engine.hpp). Owned and called by one thread. A device failure
// throws FatalError from any call.
class Engine {
 public:
  virtual ~Engine() = default;

  virtual const EngineInfo& info() const = 0;
  virtual int slots() const = 0;

  // check_batch() with this engine's limits.
  virtual Result<void> check(const kernels::PackedBatchView& batch) const = 0;

  // Starts a batch; the view may be dropped on return. Requires check(batch).ok() and a free slot:
  // one never used, or waited for since its last use. Batches run in the order of the calls, but
  // for express ones. A batch makes progress only inside calls of the engine, most of it in `wait`
  // on any slot.
  virtual void enqueue(int slot, const kernels::PackedBatchView& batch) = 0;
  // Blocks until the slot's batch is done.
  void wait(int slot) {
    (void)wait_unless(slot, [] { return false; });
  }
  // The same, or until `interrupted` says yes, which is asked every few milliseconds; returns
  // whether the batch is done.
  virtual bool wait_unless(int slot, const std::function<bool()>& interrupted) = 0;
  // Of the slot's last batch, after `wait` and until the next `enqueue` on it: row-major
  // [num_sequences, hidden_size] unit vectors, and 1 where a row is finite. 0: do not use the row;
  // it may be a neighbour's NaN, so only a sequence that ran alone is known to give it by itself.
  virtual std::span<const float> vectors(int slot) const = 0;
  virtual std::span<const std::uint8_t> finite(int slot) const = 0;
};

}  // namespace tessera::worker
