"""The options of `tomarkdown`, as its callers write them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from openworks.wire.cloudflare.fields import HttpUrl, Shape

Language = Literal["en", "it", "de", "es", "fr", "pt"]


def _no_pictures(wanted: bool) -> bool:
    if wanted:
        raise ValueError("nothing here describes pictures")
    return wanted


def _as_url(host: object) -> object:
    return f"https://{host}/" if isinstance(host, str) and "://" not in host else host


Unpictured = Annotated[bool, AfterValidator(_no_pictures)]
"""Whether pictures become text, which they do not."""
Count = Annotated[int, Field(ge=0)]


class PictureOptions(Shape):
    """Files that are pictures: each is refused as long as nothing describes them."""

    description_language: Language | None = Field(default=None, alias="descriptionLanguage")


class EmbeddedPictures(PictureOptions):
    """Pictures in documents: they are left out."""

    convert: Unpictured = False
    max_converted_images: Count | None = Field(default=None, alias="maxConvertedImages")


class PagePictures(EmbeddedPictures):
    """Pictures in web pages."""

    convert_og_image: Unpictured = Field(default=False, alias="convertOGImage")


class HtmlOptions(Shape):
    """Web pages."""

    images: PagePictures | None = None
    hostname: Annotated[HttpUrl, BeforeValidator(_as_url)] | None = None
    """A host, or a URL with one."""
    css_selector: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        default=None, alias="cssSelector"
    )


class DocxOptions(Shape):
    """Documents of Word."""

    images: EmbeddedPictures | None = None


class PdfOptions(Shape):
    """PDFs."""

    images: EmbeddedPictures | None = None
    metadata: bool = True
    """Whether what a PDF says of itself stands before its pages."""


class ToMarkdownOptions(Shape):
    """The field `conversionOptions` of the form."""

    html: HtmlOptions = HtmlOptions()
    docx: DocxOptions = DocxOptions()
    image: PictureOptions = PictureOptions()
    pdf: PdfOptions = PdfOptions()
