#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cpu/aligned_bytes.hpp"
#include "kernels/cpu/batch.hpp"
#include "kernels/cpu/linear_weight.hpp"
#include "kernels/cpu/matmul.hpp"
#include "kernels/cpu/row_kernels.hpp"
#include "kernels/cpu/team.hpp"

namespace tessera::kernels::cpu {

// The encoder's operations on the CPU. A call records what every member of the team is to do with
// its own rows of the batch; `end` hands the record to the team, whose members run it through
// without waiting for each other, so that nothing is lost at barriers. They meet only where rows of
// others are read: around the attention of a sequence that is cut between members, and once before
// the last layer, where buffers change from token rows to last-token rows.
class CpuBackend final : public Backend, public HostQueue {
 public:
  explicit CpuBackend(const CpuOptions& options);
  ~CpuBackend() override;

  std::string name() const override;
  std::string kind() const override { return "cpu-" + std::string(rows_.name); }
  DType weight_type() const override { return rows_.activation; }
  DType activation_type() const override { return rows_.activation; }
  DType residual_type() const override { return DType::kFloat32; }
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

  Start begin(BatchSlot& slot, const PackedBatchView& batch) override;
  std::uint64_t cut(BatchSlot& slot) override;
  void resume(BatchSlot& slot) override;
  void wait_cut(std::uint64_t ticket) override { team_.wait(ticket); }
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
  void host_task(std::function<void()> task) override;
  void pool(BatchSlot& slot, Buffer& x_last, Buffer& norm_weight, std::int64_t hidden, float eps,
            Length length) override;

 private:
  struct Range {
    std::int64_t begin = 0;
    std::int64_t end = 0;
  };
  // One member's own memory.
  struct Scratch {
    AlignedBytes product;  // [kProductRows, kPanelWidth] float32
    AlignedBytes tail;     // [kFilledRowsMax, widest input]: rows that do not fill a product
    AlignedBytes keys;     // one packed head, see PackedHead
    AlignedBytes values;
  };
  // What the three projections to heads share.
  struct Heads;
  // Where the attention of a sequence's head reads and writes.
  struct HeadRows;

  // The member's token rows where `rows` is the batch's tokens, its last-token rows otherwise.
  static Range range(const CpuBatchSlot& slot, int member, std::int64_t rows);
  CpuBatchSlot& recording();
  template <typename Use, typename Epilogue>
  void multiply(int member, const CpuLinearWeight& weight, const std::byte* in, Range rows, Use use,
                Epilogue epilogue);
  std::byte* norm_rows(Buffer& x, const CpuLinearWeight& weight, std::int64_t rows, float eps);
  void project_heads(const Heads& heads);
  void run_attention(int member, const HeadRows& rows, const CpuBatchSlot& slot,
                     const SharedTask& task);
  const float* rope_table(double theta);
  std::byte* row(std::byte* data, std::int64_t index, std::int64_t width) const;

  const RowKernels& rows_;
  Team team_;
  MatmulLibrary matmul_;
  std::vector<Scratch> scratch_;  // one per member
  std::int64_t cols_max_ = 0;     // widest input of a loaded matrix
  std::int64_t max_seqlen_ = 0;
  AlignedBytes normed_;       // [max_tokens, hidden]
  AlignedBytes normed_last_;  // [max_sequences, hidden]: others may still read token rows
  AlignedBytes rope_;         // [max_seqlen_][cos 64 | sin 64], of rope_theta_
  double rope_theta_ = 0;
  CpuBatchSlot* recording_ = nullptr;  // between begin or resume and cut or end
};

}  // namespace tessera::kernels::cpu
