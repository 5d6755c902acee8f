#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cuda/attention/attention_tiles.hpp"
#include "kernels/cuda/backend/batch_slot.hpp"
#include "kernels/cuda/base/resources.hpp"
#include "kernels/cuda/layers/sm90_layers.hpp"
#include "kernels/cuda/products/fused_choice.hpp"
#include "kernels/cuda/products/gemm.hpp"
#include "kernels/cuda/products/sm90_gemm.hpp"
#include "kernels/cuda/products/weight_loader.hpp"
#include "kernels/cuda/rows/rows.hpp"

namespace tessera::kernels::cuda {

// A bf16 weight, row-major [rows, cols]; gate and up rows alternate in groups of kGateUpGroup.
// Another number format joins as a second LinearWeight here and its product beside Gemm.
class Bf16Weight final : public LinearWeight {
 public:
  Bf16Weight(const LinearSource& source, std::int64_t rows, std::int64_t cols);
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  std::size_t bytes() const override { return memory_.bytes(); }
  Bf16* row(std::int64_t row) { return memory_.as<Bf16>() + row * cols_; }

 private:
  std::int64_t rows_;
  std::int64_t cols_;
  DeviceBuffer memory_;
};

// One GPU. Activations and the residual stream are bf16, sums float32. Three streams: input copies,
// kernels, output copies, so that the copies of one batch run under the kernels of another.
//
// Small batches run as graphs: one batch of a size bucket is recorded while the encoder calls the
// operations (all of them at start, or the second one that comes), and later batches of that bucket
// skip the operations and replay the recording (`begin` decides, the operations look at `mode_`).
// Weights, buffers and the order of operations must therefore be the same for every batch, as they
// are in the encoder.
class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const CudaOptions& options);
  ~CudaBackend() override;

  std::string name() const override;
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

  void begin(BatchSlot& slot, const PackedBatchView& batch) override;
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

  // For what runs between the operations (collectives): the stream they are queued on, whether
  // launches are skipped because a recorded graph stands for them, and how many rows a launch over
  // `rows` rows of the active batch covers.
  cudaStream_t stream() const { return compute_.get(); }
  int device() const { return device_; }
  void use_graphs(bool on) { graphs_ = on; }  // or launch every batch plainly
  bool replaying() const { return mode_ == Mode::kReplay; }
  std::int64_t launch_rows(std::int64_t rows) const;

 private:
  enum class Mode : std::uint8_t { kLaunch, kRecord, kReplay };
  enum class Recording : std::uint8_t { kWhileServing, kNow, kDone };
  // Rows of a qkv weight and what becomes of the product: num_q and num_k heads are normalised and
  // rotated, num_v behind them take the rows' scale.
  struct HeadProjection {
    std::int64_t first_row = 0;
    std::int64_t width = 0;
    std::int64_t rows = 0;
    std::int64_t num_q = 0;
    std::int64_t num_k = 0;
    std::int64_t num_v = 0;
    const std::int32_t* positions = nullptr;
  };

  std::optional<BatchSize> graph_batch(const CudaSlot& slot, const PackedBatchView& batch) const;
  Mode choose_mode(CudaSlot& slot, const std::optional<BatchSize>& size) const;
  void take_shared_memory(const BatchLimits& limits, const EncoderShape& shape);
  std::vector<Gemm::Tuning> tunings(const BatchLimits& limits, const EncoderShape& shape) const;
  void tune(const BatchLimits& limits, std::vector<Gemm::Tuning> all);
  void load_products(const std::vector<Gemm::Tuning>& products);
  std::size_t scratch_bytes() const;  // free memory that timing may use for a while
  void time_fused_products(const BatchLimits& limits, const EncoderShape& shape);
  void time_parted_sum(const Gemm::Tuning& shape);
  FusedGemmArguments fused_probe(const Gemm::Tuning& shape, Bf16* out, const Bf16* in,
                                 std::int64_t rows) const;
  void time_sum(const FusedChoice::Shape& shape, const Bf16* weight, Bf16* out, const Bf16* in,
                const FusedChoice::Run& ours);
  void time_fused_sum(const Gemm::Tuning& shape, Bf16* out, Bf16* in);
  void time_fused_swiglu(const Gemm::Tuning& shape, Bf16* out, Bf16* in);
  void time_fused_heads(const Gemm::Tuning& shape, Bf16* out, Bf16* in,
                        const AttentionShape& heads);
  int compute_capability() const { return properties_.major * 10 + properties_.minor; }
  void prepare_rope(double theta);
  void multiply(Bf16* out, Buffer& in, Bf16Weight& weight, std::int64_t first_row, std::int64_t n,
                std::int64_t rows, bool accumulate);
  const float* mean_squares(Buffer& x, std::int64_t rows, std::int64_t hidden, const RowNorm& norm);
  void project_heads(Bf16* heads, Buffer& x, Bf16Weight& weight, const HeadProjection& projection,
                     const QkNormRope& options);
  void set_layers(std::span<const LayerOperands> layers);
  void inject_fault();

  int device_;
  cudaDeviceProp properties_{};
  Stream compute_;
  Stream copy_in_;
  Stream copy_out_;
  Gemm gemm_;
  FusedChoice fused_;
  std::unique_ptr<WeightLoader> loader_;  // while loading
  std::vector<Gemm::Tuning> to_tune_;     // one per shape of weight seen while loading
  struct Fold {
    Bf16Weight* weight;
    std::unique_ptr<Buffer> norm;  // [cols]
  };
  std::vector<Fold> folds_;  // norms to be multiplied into their weights, while loading

  BatchLimits limits_;
  std::optional<AttentionPlan> plan_;         // set with the first slot
  std::unique_ptr<DeviceBuffer> rope_table_;  // [max_seqlen, cos | sin]
  std::unique_ptr<DeviceBuffer> gate_up_;     // [max_tokens, 2 * intermediate]
  std::unique_ptr<DeviceBuffer> squares_;     // [rows of a product], mean squares
  std::unique_ptr<LayerRunner> layers_;       // for short batches
  double rope_theta_ = 0;                     // of the table's content
  CudaSlot* active_ = nullptr;                // between begin and end of a bucket's batch
  Mode mode_ = Mode::kLaunch;
  bool graphs_ = true;
  Recording recording_ = Recording::kWhileServing;
  std::int64_t batches_ = 0;  // counted only where faults are injected
};

}  // namespace tessera::kernels::cuda
