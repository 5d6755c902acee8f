#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cuda/attention/attention_tiles.hpp"
#include "kernels/cuda/backend/batch_slot.hpp"
#include "kernels/cuda/base/bf16.hpp"
#include "kernels/cuda/base/resources.hpp"
#include "kernels/cuda/layers/sm90_layers.hpp"
#include "kernels/cuda/products/products.hpp"

namespace tessera::kernels::cuda {

// One GPU. Activations and the residual stream are bf16, sums float32. Three streams: input copies,
// kernels, output copies, so that the copies of one batch run under the kernels of another.
//
// Small batches run as graphs: one batch of a size bucket is recorded while the encoder calls the
// operations (all of them at start, or the second one that comes), and later batches of that bucket
// replay the recording, of which `begin` tells the encoder. Weights, buffers and the order of
// operations must therefore be the same for every batch, as they are in the encoder.
class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const CudaOptions& options);
  ~CudaBackend() override;

  std::string name() const override;
  std::string kind() const override { return "sm" + std::to_string(compute_capability()); }
  std::string pci_bus_id() const override;
  DType weight_type() const override { return DType::kBFloat16; }
  DType activation_type() const override { return DType::kBFloat16; }
  DType residual_type() const override { return DType::kBFloat16; }
  std::size_t free_memory_bytes() const override;

  std::vector<MemoryTerm> own_memory(const BatchLimits& limits, const EncoderShape& shape,
                                     int slots) const override;
  std::unique_ptr<Buffer> allocate(std::size_t bytes, std::string_view what) override;
  std::unique_ptr<LinearWeight> load_linear(const LinearSource& source) override;
  std::unique_ptr<Buffer> load_vector(const MatrixSlice& source) override;
  std::unique_ptr<Buffer> load_table(const MatrixSlice& source) override;
  void finish_loading() override;
  std::unique_ptr<BatchSlot> make_slot(const BatchLimits& limits,
                                       const EncoderShape& shape) override;
  std::vector<RecordedSize> recorded_sizes() const override;
  void record(bool on) override;

  Start begin(BatchSlot& slot, const PackedBatchView& batch) override;
  std::uint64_t cut(BatchSlot& slot) override;
  void resume(BatchSlot&) override {}
  void wait_cut(std::uint64_t ticket) override;
  void end(BatchSlot& slot) override;
  void wait(BatchSlot& slot) override;
  std::span<const float> vectors(const BatchSlot& slot) const override;
  std::span<const std::uint8_t> finite(const BatchSlot& slot) const override;

  void embed(Buffer& x, Buffer& table, BatchSlot& slot, std::int64_t hidden) override;
  void qkv_projection(Buffer& qkv, Buffer& x, LinearWeight& weight, BatchSlot& slot,
                      const AttentionShape& shape, const QkNormRope& options) override;
  void attention(Buffer& out, Buffer& qkv, Buffer* gathered, BatchSlot& slot,
                 const AttentionShape& shape) override;
  void kv_projection(Buffer& kv, Buffer& x, LinearWeight& weight, BatchSlot& slot,
                     const AttentionShape& shape, const QkNormRope& options) override;
  void last_q_projection(Buffer& q, Buffer& x_last, LinearWeight& weight, BatchSlot& slot,
                         const AttentionShape& shape, const QkNormRope& options) override;
  void last_attention(Buffer& out, Buffer& q, Buffer& kv, BatchSlot& slot,
                      const AttentionShape& shape) override;
  void gather_last(Buffer& out, Buffer& x, BatchSlot& slot, std::int64_t width) override;
  void linear(Buffer& out, Buffer& in, LinearWeight& weight, std::int64_t rows) override;
  void linear_add(Buffer& x, Buffer& in, LinearWeight& weight, std::int64_t rows) override;
  void swiglu_projection(Buffer& out, Buffer& x, LinearWeight& weight, std::int64_t rows,
                         const RowNorm& norm) override;
  bool run_layers(const LayersRun& run, BatchSlot& slot) override;
  void pool(BatchSlot& slot, Buffer& x_last, Buffer& norm_weight, std::int64_t hidden, float eps,
            Length length) override;

  // For what runs between the operations (collectives): the stream they are queued on, and how many
  // rows a launch over `rows` rows of the active batch covers.
  cudaStream_t stream() const { return compute_.get(); }
  int device() const { return device_; }
  void use_graphs(bool on) { graphs_ = on; }  // or launch every batch plainly
  std::int64_t launch_rows(std::int64_t rows) const;

 private:
  enum class Mode : std::uint8_t { kLaunch, kRecord, kReplay };
  enum class Recording : std::uint8_t { kWhileServing, kNow, kDone };
  std::optional<BatchSize> graph_batch(const CudaSlot& slot, const PackedBatchView& batch) const;
  Mode choose_mode(CudaSlot& slot, const std::optional<BatchSize>& size) const;
  void take_shared_memory(const BatchLimits& limits, const EncoderShape& shape);
  int compute_capability() const { return properties_.major * 10 + properties_.minor; }
  void prepare_rope(double theta);
  void set_layers(std::span<const LayerOperands> layers);
  void inject_fault();

  int device_;
  cudaDeviceProp properties_{};
  Stream compute_;
  Stream copy_in_;
  Stream copy_out_;
  Products products_;

  BatchLimits limits_;
  std::optional<AttentionPlan> plan_;         // set with the first slot
  std::unique_ptr<DeviceBuffer> rope_table_;  // [max_seqlen, cos | sin]
  std::unique_ptr<LayerRunner> layers_;       // for short batches
  double rope_theta_ = 0;                     // of the table's content
  CudaSlot* active_ = nullptr;                // between begin and end of a bucket's batch
  Mode mode_ = Mode::kLaunch;
  bool graphs_ = true;
  Recording recording_ = Recording::kWhileServing;
  std::array<Event, kCutsMax> cuts_;  // by ticket, in turns
  std::uint64_t next_cut_ = 0;
  std::int64_t batches_ = 0;  // counted only where faults are injected
};

}  // namespace tessera::kernels::cuda
