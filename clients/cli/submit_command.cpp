#include <cstdio>
#include <map>
#include <memory>

#include "clients/cli/command.hpp"
#include "clients/cli/read_options.hpp"
#include "clients/cli/submit/submit_run.hpp"
#include "common/os/stop_signal.hpp"

namespace tessera::cli {
namespace {

void add_input_options(CLI::App& command, SubmitOptions& options) {
  command
      .add_option(
          "INPUT", options.inputs,
          "Files: .txt (a line a text), .jsonl ({\"text\": ...} or {\"ids\": [...]} a line), "
          ".csv, .tsv (with a header row); - is stdin, a line a text unless --input-format says "
          "otherwise. What is found is said; what does not fit is refused before anything is done")
      ->required();
  add_read_options(command, options.read);
  command.add_flag("--dry-run", options.dry_run.asked,
                   "Say how the input is read and print its first items as they would be embedded; "
                   "needs neither cluster nor --out");
  command.add_option("--dry-run-items", options.dry_run.items, "How many items --dry-run prints")
      ->capture_default_str();
  command.add_option("--model-dir", options.dry_run.model_dir,
                     "Folder of the model, for --dry-run to show its prompts");
}

void add_output_options(CLI::App& command, SubmitOptions& options) {
  command.add_option("--out", options.output.folder, "Folder of the vectors; made when missing");
  command
      .add_option_function<std::string>(
          "--format",
          [&options](const std::string& format) {
            options.output.format = format == "jsonl"   ? OutputFormat::kJsonLines
                                    : format == "fvecs" ? OutputFormat::kFvecs
                                                        : OutputFormat::kNpy;
          },
          "npy (shards vectors-00000.npy and ids.txt), jsonl, or fvecs (with ids.txt)")
      ->check(CLI::IsMember({"npy", "jsonl", "fvecs"}))
      ->default_str("npy");
  command.add_flag_callback(
      "--float16", [&options] { options.spec.vector_type = protocol::VectorType::kFloat16; },
      "Vectors of two bytes a value instead of four (npy)");
  command.add_option("--shard-rows", options.output.shard_rows, "Vectors of one .npy file")
      ->check(CLI::Range(1U, 1U << 30))
      ->capture_default_str();
  command
      .add_option("--chunk-items", options.chunk_items,
                  "Items that travel together; what a crash makes the next run do again")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command.add_option("--priority", options.priority, "Weight of this job's share, 1 to 100")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  command.add_flag("--json", options.json, "The summary as JSON");
  command.add_flag("--quiet", options.quiet, "No progress on stderr");
}

int run_dry(const SubmitOptions& options) {
  const std::atomic<bool> kNoStop{false};
  const auto reader = open_readers(options.inputs, options.read, kNoStop);
  std::fprintf(stderr, "%s\n", reader->description().c_str());
  print_first_items(*reader, options.inputs, options.spec, options.dry_run);
  return kExitOk;
}

}  // namespace

void add_submit(CLI::App& app, Selected& selected) {
  CLI::App* command = app.add_subcommand("submit", "Embed whole files as a job");
  auto options = std::make_shared<SubmitOptions>();
  add_input_options(*command, *options);
  add_output_options(*command, *options);
  add_spec_options(*command, options->spec);
  add_connect_options(*command, options->connect);
  command->footer(
      std::string(
          "Rows are in the order of the input; ids.txt has the id of each row. Items without a\n"
          "vector are in errors.jsonl, shortened ones in truncated.jsonl. The same command again\n"
          "goes on where the last run ended, after Ctrl-C or a crash too, and embeds nothing "
          "twice.\n\nExamples:\n"
          "  tessera submit packages.csv --dry-run\n"
          "  tessera submit packages.jsonl --out vectors\n"
          "  tessera submit a.csv b.csv --field body --id-field key --out vectors --dimensions "
          "256\n"
          "  zcat texts.gz | tessera submit - --out vectors --truncate right --format fvecs\n") +
      kExitCodes);
  command->callback([options, &selected] {
    if (options->output.folder.empty() && !options->dry_run.asked) {
      throw CLI::RequiredError("--out");
    }
    selected.run = [options] {
      options->output.type = options->spec.vector_type;
      options->output.inputs = options->inputs;
      if (options->dry_run.asked) {
        return run_dry(*options);
      }
      const StopSignal stop;
      return SubmitRun(*options, stop).run();
    };
  });
}

}  // namespace tessera::cli
