"""The results of tasks as types, one for each task type and operation: the OpenAPI document shows them to clients.

Nothing decodes with them, for the API passes a result on as the bytes that the sandbox gave. Tests hold every answer of
the handlers' own tests against the schemas that come of them. A newer service may add fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from engine.api.docs.results.data import (
    AverageResult,
    CorrelationResult,
    CountResult,
    FieldSummary,
    FilterResult,
    GroupResult,
    HistogramResult,
    JoinResult,
    PivotResult,
    QueryResult,
    SelectResult,
    SortResult,
    StatisticsResult,
    SumResult,
)
from engine.api.docs.results.documents import (
    AnalyzedDocument,
    DocumentSummary,
    DocumentTable,
    ExtractedText,
)
from engine.api.docs.results.images import (
    AnalyzedImage,
    ConvertedImage,
    CroppedImage,
    FilteredImage,
    PipelineImage,
    ReadImage,
    ResizedImage,
    ThumbnailImage,
)
from engine.api.docs.results.models import ClassificationResult, EntitiesResult, SentimentResult, TextAnalysisResult
from engine.api.docs.results.web import WebScrapingResult

RESULTS: Mapping[str, tuple[type[msgspec.Struct], ...]] = MappingProxyType(
    {
        "data_processing": (
            SumResult, AverageResult, CountResult, StatisticsResult, CorrelationResult, SelectResult, FilterResult,
            SortResult, GroupResult, JoinResult, PivotResult, HistogramResult, QueryResult,
        ),
        "document_processing": (ExtractedText, AnalyzedDocument, DocumentSummary),
        "image_processing": (
            ResizedImage, CroppedImage, FilteredImage, ConvertedImage, ThumbnailImage, AnalyzedImage, ReadImage,
            PipelineImage,
        ),
        "ml_inference": (SentimentResult, ClassificationResult, EntitiesResult, TextAnalysisResult),
        "web_scraping": (WebScrapingResult,),
    }
)  # fmt: skip
"""Task type → its results, told apart by one field where there are several. A script may answer with any JSON."""
OTHERS = (FieldSummary, DocumentTable)
"""Types that only a schema written by hand refers to."""
