/* The page's data as JSON: the dataclasses of pipelines/report/data.py by the same names, and what stands within them.
 * A test compares the names of the fields. */

export interface Column {
  key: string;
  title: string;
  unit: string;
  error: string | null;
  better: "high" | "low" | null;
  log: boolean;
  form: "text" | "score" | "flops" | "count" | "share" | "duration" | "whole";
  shown: boolean;
  axis: boolean;
}

export interface SeedRun {
  study: number;
  trial: number;
  seed: number;
  url: string | null;
  model: string;
  trained: Record<string, string>;
}

export interface Row {
  key: string;
  label: string;
  study: string;
  rank: number;
  family: string;
  head: string | null;
  values: Record<string, number | string | null>;
  texts: Record<string, string>;
  members: SeedRun[];
  fronts: string[];
  violations: string[];
}

export interface Board {
  protocol_hash: string;
  title: string;
  protocol: string[];
  settings: Record<string, unknown>;
  caption: string;
  columns: Column[];
  rows: Row[];
  headline: Headline;
}

export interface Curve {
  flops: number[];
  terms: Record<string, (number | null)[]>;
}

export interface TrainingCurves {
  kind: string;
  model: string;
  label: string;
  train: Curve;
  validation: Curve;
  num_logged: number;
}

export interface ProbePoint {
  x: number;
  y: number;
  se: number;
  text: string;
}

export interface Autoencoder {
  model: string;
  label: string;
  chunk_size: number;
  latent_size: number;
  cells: string[];
  noise: ProbePoint[];
  bits: ProbePoint[];
  kl: number[];
  kl_texts: string[];
}

export interface Text {
  temperature: number;
  prompt: string;
  text: string;
  ended: boolean;
  num_tokens: number;
}

export interface Writing {
  model: string;
  texts: Text[];
}

export interface CheckpointCurve {
  label: string;
  family: string;
  protocol_hash: string;
  points: Record<"training_flops" | "cross_entropy" | "cross_entropy_se" | "brierlm" | "brierlm_se", number>[];
  texts: Record<"training_flops" | "cross_entropy" | "brierlm", string>[];
}

export interface Search {
  sampler: string;
  objective: string;
  direction: string;
  parameters: Parameter[];
  points: SearchPoint[];
  importance: Record<string, number>;
  why: string;
}

export interface UnrankedTrial {
  trial: number;
  label: string;
  state: string;
  error: string;
  settings: Record<string, string>;
  url: string | null;
}

export interface Expected {
  kind: string;
  estimated_s: number;
  measured_s: number;
  cells: string[];
}

export interface Command {
  text: string;
  purpose: string;
}

export interface StudyPart {
  name: string;
  identity: string;
  description: string;
  configuration: string;
  num_trials: number;
  budget: string | null;
  finished: string | null;
  url: string | null;
  search: Search | null;
  ended: UnrankedTrial[];
  commands: Command[];
  notes: string[];
  environment: [string, string][];
  stages: { kind: string; count: number; cells: string[] }[];
  estimates: Expected[];
}

export interface Report {
  title: string;
  studies: StudyPart[];
  boards: Board[];
  families: { name: string; colour: number; marker: number }[];
  curves: TrainingCurves[];
  trainings: [string, string][];
  autoencoders: Autoencoder[];
  writings: Writing[];
  kept: CheckpointCurve[];
  left_out: string[];
  training_flops: string;
  wall_time: string;
  made_by: string;
  format: string;
  version: number;
}

/** What the page reads of a headline; all but the sentences may be missing. */
export interface Headline {
  sentences?: string[];
  families?: LawFamily[];
  claim?: { training: string; inference: string; sentences: string[] };
  table?: { reference: string; rows: { family: string; cells: [string, string][] }[] } | null;
  method?: string;
  command?: string | null;
}

export type Price = "training_flops" | "total_training_flops" | "inference_flops_per_token";

export interface LawFamily {
  name: string;
  look: string;
  points: {
    score: number;
    training_flops: number;
    autoencoder_training_flops: number;
    inference_flops_per_token: number;
    is_finished: boolean;
    is_used: boolean;
  }[];
  curve: Record<Price | "score" | "low" | "high", number[]> | null;
}

export interface Parameter {
  name: string;
  label: string;
  log: boolean;
  numeric: boolean;
}

export interface SearchPoint {
  trial: number;
  label: string;
  state: string;
  value: number | null;
  text: string;
  at: Record<string, string | number | boolean | null>;
}
