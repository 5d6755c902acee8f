#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/check.hpp"
#include "kernels/types.hpp"

namespace tessera::kernels {

// Device memory of one backend: freed on destruction. On the CPU it is 64-byte-aligned host memory.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual std::size_t bytes() const = 0;
  virtual void* data() = 0;  // device address
};

// A weight matrix [rows, cols] (out features, in features) as its backend likes it: packed,
// interleaved or quantised. A new weight type is a new implementation together with its GEMM.
class LinearWeight {
 public:
  virtual ~LinearWeight() = default;
  virtual std::int64_t rows() const = 0;
  virtual std::int64_t cols() const = 0;
  virtual std::size_t bytes() const = 0;
};

// One line of a printed memory sum.
struct MemoryTerm {
  std::string what;  // "2 slots: ids, positions, tiles"
  std::size_t bytes = 0;
  bool page_locked = false;  // of the host, for a device's copies; else on the device
};

// A batch that is recorded for all that are covered by its recording.
struct RecordedSize {
  std::int64_t tokens = 0;
  std::int64_t sequences = 0;  // or parts
  BatchKind kind = BatchKind::kWhole;
  bool operator==(const RecordedSize&) const = default;
};

struct LinearSource {
  std::string name;  // for error messages, for example "layers.3.self_attn.qkv"
  std::vector<MatrixSlice> slices;
  // [cols] of the RMSNorm in front of the product, for weights that begin half a layer.
  std::optional<MatrixSlice> norm = std::nullopt;
  RowLayout layout = RowLayout::kStacked;
  bool partial = false;  // a rank's columns: for `linear`, not `linear_add`
};

// One of the batches in flight: its staged input, its tile lists and its output. The engine owns
// `slots()` of them; a slot is reused only after `wait` returned.
class BatchSlot {
 public:
  virtual ~BatchSlot() = default;
  virtual std::int64_t total_tokens() const = 0;
  virtual std::int64_t num_sequences() const = 0;  // that have a vector here
};

// One device (a GPU, or the CPU) and the operations of the encoder on it. The graph in
// worker/encoder/encoder.cpp is written once over this interface; kernels/cpu is the readable
// definition, kernels/cuda the fast one. All calls come from the one thread that owns the device;
// operations are queued in order and may run after the call returns, until `wait`. Activations are
// row-major [rows, width] in `activation_type()`, except where float32 is said. Device failures
// throw FatalError. Memory is taken only at start: after `seal`, allocate, load and make calls are
// bugs.
class Backend {
 public:
  virtual ~Backend() = default;

  // Of a GPU, for the driver's sensors: "00000000:1b:00.0"; empty of others.
  virtual std::string pci_bus_id() const { return {}; }
  virtual std::string name() const = 0;  // "cpu avx512_bf16, 2 threads", "NVIDIA H200"
  // Devices of one kind give the same bits for the same sequence: "cpu-avx512_bf16", "sm90".
  virtual std::string kind() const = 0;
  virtual DType weight_type() const = 0;  // as stored by load_linear and load_table
  virtual DType activation_type() const = 0;
  virtual DType residual_type() const = 0;            // of the residual stream x
  virtual std::size_t free_memory_bytes() const = 0;  // that this process may still take

  // start
  // What the backend takes for itself beside allocate() and load_*(): `slots` batch slots, tile
  // lists, matrix-product workspace, packing scratch, gate and up before SwiGLU. Asked before
  // anything is taken, so that the engine can refuse with the whole sum; make_slot() and the
  // operations then stay inside it.
  virtual std::vector<MemoryTerm> own_memory(const BatchLimits& limits, const EncoderShape& shape,
                                             int slots) const = 0;
  virtual std::unique_ptr<Buffer> allocate(std::size_t bytes, std::string_view what) = 0;
  virtual std::unique_ptr<LinearWeight> load_linear(const LinearSource& source) = 0;
  // Norm weights [cols] become float32; the embedding table [vocab, hidden] keeps its type.
  virtual std::unique_ptr<Buffer> load_vector(const MatrixSlice& source) = 0;
  virtual std::unique_ptr<Buffer> load_table(const MatrixSlice& source) = 0;
  virtual void finish_loading() = 0;  // returns once the sources may be unmapped
  // The first call also takes what all slots share; it comes after the weights.
  virtual std::unique_ptr<BatchSlot> make_slot(const BatchLimits& limits,
                                               const EncoderShape& shape) = 0;

  // Sizes of small batches whose operations are recorded once and then replayed, which costs the
  // host next to nothing; asked after make_slot. None where nothing is ever recorded.
  virtual std::vector<RecordedSize> recorded_sizes() const { return {}; }
  // While on, a pass over a batch of such a size is recorded for its slot and not run: nothing
  // comes of it. Turned off, sizes without a recording are launched plainly for good. A backend
  // that is never told records the second batch of a size while it serves.
  virtual void record(bool /*on*/) {}
  // Start is over.
  void seal() { sealed_ = true; }

  // a batch's start and end
  enum class Start : std::uint8_t {
    kQueue,   // the operations are to be called
    kReplay,  // a recording stands for all of them, collectives too: `end` is the next call
  };
  // Copies ids and cu_seqlens in, derives position ids and attention tiles.
  [[nodiscard]] virtual Start begin(BatchSlot& slot, const PackedBatchView& batch) = 0;
  // A pass may be cut into pieces, so that the pass of another slot comes between two of them:
  //   begin(a) ... cut(a)   begin(b) ... end(b)   resume(a) ... end(a)
  // Only passes whose operations are called (Start::kQueue) can be cut. `cut` returns the cut's
  // ticket; `wait_cut` blocks until all that was queued before the cut has run, which is to be
  // asked before kCutsMax more are made.
  [[nodiscard]] virtual std::uint64_t cut(BatchSlot& slot) = 0;
  virtual void resume(BatchSlot& slot) = 0;
  virtual void wait_cut(std::uint64_t ticket) = 0;
  static constexpr std::uint64_t kCutsMax = 4;
  // Copies vectors [num_sequences, hidden] float32 and their finite flags out when all that was
  // queued before has run; returns at once. `wait` blocks until they are there.
  virtual void end(BatchSlot& slot) = 0;
  virtual void wait(BatchSlot& slot) = 0;
  virtual std::span<const float> vectors(const BatchSlot& slot) const = 0;        // host
  virtual std::span<const std::uint8_t> finite(const BatchSlot& slot) const = 0;  // host, 1 = ok

  // the operations, in the order of the graph
  // x[t] = table[input_ids[t]]                                     x: [T, hidden] residual type
  virtual void embed(Buffer& x, Buffer& table, BatchSlot& slot, std::int64_t hidden) = 0;

  // The products that begin half a layer take the residual stream and normalise its rows by the
  // norm that their weight was loaded with:
  //   norm(x) = x / sqrt(mean(x^2) + eps) * norm weight
  // A backend may multiply the norm's weight into the matrix at start, and the product's rows by
  // 1 / sqrt(...) behind it, so that the normed rows are never written.
  struct RowNorm {
    // [rows] float32, mean(x^2) + eps where somebody has measured it; a backend is free to use it.
    Buffer* mean_squares = nullptr;
    float eps = 1e-6F;
  };
  struct QkNormRope {
    RowNorm norm;              // its eps is that of the heads' norms too
    Buffer* q_norm = nullptr;  // [head_dim] float32
    Buffer* k_norm = nullptr;  // [head_dim] float32
    double rope_theta = 1e6;
  };
  // qkv = norm(x) * W^T, then RMSNorm of every q and k head, then half-rotation RoPE at each
  // token's position. qkv: [T, q | k | v]
  virtual void qkv_projection(Buffer& qkv, Buffer& x, LinearWeight& weight, BatchSlot& slot,
                              const AttentionShape& shape, const QkNormRope& options) = 0;
  // Causal grouped-query attention inside each sequence.            out: [T, q_width]
  // `gathered` [rows of the group, k | v] holds the keys and values of a batch made of segments;
  // null for a batch of whole sequences, whose keys and values are those of qkv.
  virtual void attention(Buffer& out, Buffer& qkv, Buffer* gathered, BatchSlot& slot,
                         const AttentionShape& shape) = 0;

  // The last layer needs k and v of all tokens but q of last tokens only.
  // kv: [T, k | v] from x [T, hidden]; k normalised and rotated.
  virtual void kv_projection(Buffer& kv, Buffer& x, LinearWeight& weight, BatchSlot& slot,
                             const AttentionShape& shape, const QkNormRope& options) = 0;
  // q: [n, q_width] from x_last [n, hidden]; normalised and rotated at the last positions.
  virtual void last_q_projection(Buffer& q, Buffer& x_last, LinearWeight& weight, BatchSlot& slot,
                                 const AttentionShape& shape, const QkNormRope& options) = 0;
  // out: [n, q_width], sequence i's query over all of its keys; kv is the gathered one for
  // segments.
  virtual void last_attention(Buffer& out, Buffer& q, Buffer& kv, BatchSlot& slot,
                              const AttentionShape& shape) = 0;
  // out[i] = x[cu_seqlens[i+1] - 1], both of residual type.
  virtual void gather_last(Buffer& out, Buffer& x, BatchSlot& slot, std::int64_t width) = 0;

  // out = in * W^T                                                  [rows, W.rows]
  virtual void linear(Buffer& out, Buffer& in, LinearWeight& weight, std::int64_t rows) = 0;
  // x += in * W^T                                                   x of residual type
  virtual void linear_add(Buffer& x, Buffer& in, LinearWeight& weight, std::int64_t rows) = 0;
  // out = silu(norm(x) * G^T) * (norm(x) * U^T)                     [rows, intermediate]
  virtual void swiglu_projection(Buffer& out, Buffer& x, LinearWeight& weight, std::int64_t rows,
                                 const RowNorm& norm) = 0;

  struct LayerOperands {
    LinearWeight* qkv = nullptr;
    LinearWeight* o = nullptr;
    LinearWeight* gate_up = nullptr;
    LinearWeight* down = nullptr;
    Buffer* q_norm = nullptr;
    Buffer* k_norm = nullptr;
  };
  struct LayersRun {
    std::span<const LayerOperands> layers;  // the same at every call
    Buffer* x = nullptr;
    Buffer* qkv = nullptr;
    Buffer* attention = nullptr;
    Buffer* mlp = nullptr;
    AttentionShape shape;
    float eps = 1e-6F;
    double rope_theta = 1e6;
  };
  // All these layers at once, from x to x: the operations above in their order, with the same bits.
  // Does nothing and returns false where the backend has no faster way for this batch than these
  // operations.
  virtual bool run_layers(const LayersRun&, BatchSlot&) { return false; }

  enum class Length : std::uint8_t { kUnit, kOwn };
  // Final RMSNorm and, for kUnit, L2 normalisation in float32 of x_last [n, hidden] (residual type)
  // into the slot's vectors; finite flag 0 where any value is NaN or Inf or the norm is 0.
  virtual void pool(BatchSlot& slot, Buffer& x_last, Buffer& norm_weight, std::int64_t hidden,
                    float eps, Length length) = 0;

 protected:
  void check_start() const { CHECK(!sealed_); }

 private:
  bool sealed_ = false;
};

// What backends of the host are, too: operations of a group's ranks can be put between theirs.
class HostQueue {
 public:
  virtual ~HostQueue() = default;
  // Runs a function between what was queued before it and what comes after.
  virtual void host_task(std::function<void()> task) = 0;
};

struct CpuOptions {
  int threads = 0;                       // 0: all cores
  DType weight_type = DType::kBFloat16;  // kFloat32 computes everything in float32
};
std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options);

struct CudaOptions {
  int device = 0;
  std::string algorithm_cache;  // file of timed cuBLASLt choices; empty: in the user's cache folder
};
// Throws FatalError with one sentence when the build has no CUDA or the machine no such GPU.
std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options);
int cuda_device_count();  // 0 where there is no CUDA

}  // namespace tessera::kernels
